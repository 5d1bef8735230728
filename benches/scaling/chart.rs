//! The chart of the speed over the number of workers.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 20.0;

/// One point: workers, frames a second, and what would be ideal.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub workers: usize,
    pub rate: f64,
    pub ideal: f64,
}

/// Draws the points, both axes logarithmic.
pub fn draw(title: &str, points: &[Point]) -> String {
    let log = |v: f64| v.log2();
    let most_workers = points.iter().map(|p| p.workers as f64).fold(1.0, f64::max);
    let least = points.iter().map(|p| p.rate.min(p.ideal)).fold(f64::MAX, f64::min);
    let most = points.iter().map(|p| p.rate.max(p.ideal)).fold(1.0, f64::max);
    let (low, high) = (log(least).floor(), log(most).ceil());
    let x =
        |workers: f64| LEFT + (WIDTH - LEFT - RIGHT) * log(workers) / log(most_workers).max(1.0);
    let y = |rate: f64| {
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (log(rate) - low) / (high - low).max(1.0)
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    let mut line = |text: String| writeln!(svg, "{text}").expect("a text can be written to");
    for point in points {
        let at = x(point.workers as f64);
        line(format!(
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
            point.workers
        ));
    }
    for power in low as i32..=high as i32 {
        let rate = 2f64.powi(power);
        let at = y(rate);
        line(format!(
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{rate}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        ));
    }
    let path = |value: fn(&Point) -> f64| -> String {
        let place = |p: &Point| format!("{:.1},{:.1}", x(p.workers as f64), y(value(p)));
        points.iter().map(place).collect::<Vec<_>>().join(" ")
    };
    line(format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#888\" stroke-dasharray=\"5 4\"/>",
        path(|p| p.ideal)
    ));
    line(format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#0b62a4\" stroke-width=\"2\"/>",
        path(|p| p.rate)
    ));
    for point in points {
        line(format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"#0b62a4\"/>",
            x(point.workers as f64),
            y(point.rate)
        ));
    }
    line(format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">workers</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0
    ));
    line(format!(
        "<text x=\"16\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1})\">frames a \
         second (dashed: ideal)</text>",
        HEIGHT / 2.0,
        HEIGHT / 2.0
    ));
    svg + "</svg>\n"
}
