//! A `.ptyd` file as a reader sees it.

