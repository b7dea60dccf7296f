//! The figures of a run, written where people read them: a table and two curves in `docs/`. Must not know how they were
//! measured.

use std::fs;
use std::path::Path;

use super::figures::{Figures, Point};
use super::svg::{Series, curve};
use crate::BenchError;

const BEGIN: &str = "<!-- fleet: begin -->";
const END: &str = "<!-- fleet: end -->";

/// Writes them into `docs`.
pub fn write(docs: &Path, figures: &Figures) -> Result<(), BenchError> {
    let file = |error| BenchError::File("docs", error);
    fs::write(docs.join("fleet-fan-out.svg"), fan_out(figures)).map_err(file)?;
    fs::write(docs.join("fleet-edit.svg"), edit(figures)).map_err(file)?;
    let page = docs.join("benchmarks.md");
    let text = fs::read_to_string(&page).map_err(file)?;
    let parts =
        text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, behind) = parts
        .ok_or_else(|| BenchError::Child(format!("benchmarks.md has no {BEGIN} and {END}")))?;
    fs::write(page, format!("{before}{BEGIN}\n{}\n{END}{behind}", section(figures))).map_err(file)
}

fn section(figures: &Figures) -> String {
    let promises: Vec<String> = figures
        .promises()
        .iter()
        .map(|promise| {
            let holds = if promise.holds() { "yes" } else { "**no**" };
            let (what, unit) = (promise.what.trim(), promise.unit);
            format!(
                "| {what} | {:.2} {unit} | {:.2} {unit} | {holds} |",
                promise.limit, promise.figure
            )
        })
        .collect();
    let row = |point: &Point| {
        format!(
            "| {} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            point.servers,
            point.orders * point.servers,
            point.request,
            point.times.p50,
            point.times.p99,
            point.times.max,
            point.confirmed,
            point.floor.p99,
            point.floor.max
        )
    };
    let points: Vec<String> = figures.points.iter().map(row).collect();
    format!(
        "{} agents, enrolled in {:.1} s, connected in {:.1} s. Stopping took {:.2} s.\n\n\
         | promise | limit | figure | holds |\n| --- | --- | --- | --- |\n{}\n\n\
         A grant for one user; seconds from the request:\n\n\
         | servers | orders | queued | p50 | p99 | last answer | confirmed | bare p99 | bare last |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n{}\n\n\
         ![fan-out](fleet-fan-out.svg)\n\n![an edit](fleet-edit.svg)",
        figures.count,
        figures.enrolled,
        figures.connected,
        figures.stopped,
        promises.join("\n"),
        points.join("\n")
    )
}

#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 servers")]
fn series(
    figures: &Figures,
    name: &'static str,
    colour: &'static str,
    of: fn(&Point) -> f64,
) -> Series {
    let points = figures.points.iter().map(|point| (point.servers as f64, of(point))).collect();
    Series { name, colour, points }
}

fn fan_out(figures: &Figures) -> String {
    let lines = [
        series(figures, "confirmed", "#b22", |point| point.confirmed),
        series(figures, "p99 of the answers", "#07c", |point| point.times.p99),
        series(figures, "bare SSH, p99", "#999", |point| point.floor.p99),
    ];
    curve("A grant for one user, until its servers have it", "servers", "seconds", &lines)
}

fn edit(figures: &Figures) -> String {
    let lines = [series(figures, "planned, queued, told", "#07c", |point| point.request)];
    let title = "One grant planned and queued durably, by the servers that it touches";
    curve(title, "servers touched", "seconds", &lines)
}
