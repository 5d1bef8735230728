//! Normalisation whose reference is the mean over the first chunk.

use super::Scan;
use ptystream_common::checksum;
use ptystream_common::frame::Array;

impl Scan {
    /// Makes factors of the values of all scan points, now that the chunks are known.
    pub(super) fn refer_to_first_chunk(&mut self) {
        let first = self.plan.frames_per_chunk as usize;
        let checksums = self.pipeline.checksums;
        for (head, data) in self.arrays.iter_mut().filter(|(head, _)| head.name == "scale") {
            let array = Array { dtype: head.dtype, shape: head.shape.clone(), data: data.clone() };
            let factors = factors(&array.to_f64(), first);
            *data = Array::from_items(&head.shape, &factors).data;
            head.checksum = checksums.then(|| checksum::sum(data));
        }
    }
}

/// Makes factors of values, NaN: not used; reference: the mean over the first that are.
fn factors(values: &[f64], first: usize) -> Vec<f64> {
    let mean = |values: &[f64]| {
        let used: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        (!used.is_empty()).then(|| used.iter().sum::<f64>() / used.len() as f64)
    };
    let reference = mean(&values[..first.min(values.len())]).or_else(|| mean(values));
    let reference = reference.unwrap_or(1.0);
    values.iter().map(|v| if v.is_nan() { 1.0 } else { reference / v }).collect()
}

#[cfg(test)]
mod tests {
    use super::factors;

    #[test]
    fn the_first_chunk_is_the_reference() {
        assert_eq!(factors(&[2.0, 4.0, f64::NAN, 6.0], 2), [1.5, 0.75, 1.0, 0.5]);
        assert_eq!(factors(&[f64::NAN, 4.0, 8.0], 1), [1.0, 1.5, 0.75], "none is used there");
    }
}
