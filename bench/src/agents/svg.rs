//! A curve as a small SVG that needs no program to be read: both axes logarithmic, one line a series. Must not know
//! what is drawn.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// One line of the picture.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is.
    pub name: &'static str,
    /// Its colour.
    pub colour: &'static str,
    /// Its points, both values above zero.
    pub points: Vec<(f64, f64)>,
}

/// The picture.
pub fn curve(title: &str, x: &str, y: &str, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|line| &line.points);
    let (xs, ys) = (range(all().map(|point| point.0)), range(all().map(|point| point.1)));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    axes(&mut text, xs, ys);
    labels(&mut text, x, y);
    for (number, line) in series.iter().enumerate() {
        draw(&mut text, line, number, xs, ys);
    }
    text.push_str("</svg>\n");
    text
}

/// Powers of ten around all values.
fn range(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let logs: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
    let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
    let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return (0, 1);
    }
    #[allow(clippy::cast_possible_truncation, reason = "logarithms of what was measured")]
    let (low, high) = (low.floor() as i32, high.ceil() as i32);
    (low, high.max(low + 1))
}

fn place(value: f64, (low, high): (i32, i32), from: f64, to: f64) -> f64 {
    let share = (value.log10() - f64::from(low)) / f64::from(high - low);
    from + share * (to - from)
}

fn across(value: f64, range: (i32, i32)) -> f64 {
    place(value, range, LEFT, WIDTH - RIGHT)
}

fn up(value: f64, range: (i32, i32)) -> f64 {
    place(value, range, HEIGHT - BOTTOM, TOP)
}

fn axes(text: &mut String, xs: (i32, i32), ys: (i32, i32)) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let line = "stroke=\"#ddd\"";
    for power in xs.0..=xs.1 {
        let value = 10_f64.powi(power);
        let x = across(value, xs);
        push(
            text,
            format_args!(
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" {line}/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>\n",
                bottom + 18.0
            ),
        );
    }
    for power in ys.0..=ys.1 {
        let value = 10_f64.powi(power);
        let y = up(value, ys);
        push(
            text,
            format_args!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" {line}/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>\n",
                LEFT - 6.0,
                y + 4.0
            ),
        );
    }
}

fn labels(text: &mut String, x: &str, y: &str) {
    let middle = LEFT + (WIDTH - RIGHT - LEFT) / 2.0;
    let (down, high) = (HEIGHT - 10.0, TOP + (HEIGHT - BOTTOM - TOP) / 2.0);
    push(
        text,
        format_args!(
            "<text x=\"{middle}\" y=\"{down}\" text-anchor=\"middle\">{x}</text>\n\
         <text x=\"16\" y=\"{high}\" text-anchor=\"middle\" \
         transform=\"rotate(-90 16 {high})\">{y}</text>\n"
        ),
    );
}

fn draw(text: &mut String, line: &Series, number: usize, xs: (i32, i32), ys: (i32, i32)) {
    let colour = line.colour;
    let points: Vec<(f64, f64)> = line
        .points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (across(*x, xs), up(*y, ys)))
        .collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    push(
        text,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.join(" ")
        ),
    );
    for (x, y) in points {
        push(
            text,
            format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"),
        );
    }
    let row = f64::from(u32::try_from(number).unwrap_or(0));
    let (x, y) = (WIDTH - RIGHT + 12.0, TOP + 14.0 + row * 20.0);
    push(
        text,
        format_args!(
            "<circle cx=\"{x}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>\n\
         <text x=\"{:.1}\" y=\"{y}\">{}</text>\n",
            y - 4.0,
            x + 10.0,
            line.name
        ),
    );
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a text takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_between_the_powers_of_ten_around_them() {
        let series =
            [Series { name: "p99", colour: "#07c", points: vec![(100.0, 0.02), (1e4, 1.0)] }];
        let text = curve("fan-out", "servers", "seconds", &series);
        assert!(text.contains("<polyline points=\"70.0,"), "{text}");
        assert!(text.contains(">10000</text>") && text.contains(">0.01</text>"), "{text}");
        assert_eq!(text.matches("<circle").count(), 3);
        assert_eq!(range(std::iter::empty()), (0, 1));
        assert_eq!(range([0.5, 3.0].into_iter()), (-1, 1));
    }
}
