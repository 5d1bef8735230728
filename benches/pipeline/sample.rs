//! What one run took.

use crate::usage::Usage;

/// One run.
#[derive(Clone, Debug)]
pub struct Sample {
    pub frames: u64,
    /// Seconds from the first result to the complete file.
    pub secs: f64,
    /// What each role used; several workers make one entry.
    pub roles: Vec<(&'static str, Usage)>,
}

impl Sample {
    /// Returns frames a second.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.secs
    }

    /// Tells CPU milliseconds a frame, by role where there are several.
    pub fn cpu(&self) -> String {
        let ms = |usage: &Usage| usage.cpu_secs * 1e3 / self.frames as f64;
        let sum: f64 = self.roles.iter().map(|(_, u)| ms(u)).sum();
        match self.roles.len() {
            1 => format!("{sum:.2}"),
            _ => {
                let each: Vec<String> =
                    self.roles.iter().map(|(_, u)| format!("{:.2}", ms(u))).collect();
                format!("{sum:.2} = {}", each.join("+"))
            }
        }
    }

    /// Tells the highest resident memory of each role.
    pub fn memory(&self) -> String {
        let each: Vec<String> =
            self.roles.iter().map(|(role, u)| format!("{role} {}", u.peak_bytes >> 20)).collect();
        each.join(", ")
    }
}

/// Returns the run of middle speed.
pub fn median(mut samples: Vec<Sample>) -> Sample {
    samples.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    samples.swap_remove(samples.len() / 2)
}
