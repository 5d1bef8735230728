//! How the tests start `mpirun`.

/// What it needs in its environment: tests run as root where they run in containers, on fewer cores than
/// ranks, and where one process may not read another's memory, which is only a faster way.
pub const ENVIRONMENT: [(&str, &str); 4] = [
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
    ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
];
