//! The figures of a run, written where people read them: a table and two curves in `docs/`. Must not know how they were
//! measured.

use std::fs;
use std::path::Path;

use super::Engine;
use super::figures::{Figures, Point, Promise};
use super::svg::{Series, curve};
use crate::BenchError;

/// Writes them into `docs`.
pub fn write(docs: &Path, figures: &Figures) -> Result<(), BenchError> {
    let file = |error| BenchError::File("docs", error);
    let part = part(figures.engine);
    fs::write(docs.join(format!("{part}-fan-out.svg")), fan_out(figures)).map_err(file)?;
    fs::write(docs.join(format!("{part}-edit.svg")), edit(figures)).map_err(file)?;
    replace(docs, part, &section(figures))
}

/// The part of the page, and how the names of its pictures begin.
fn part(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "fleet",
        Engine::Postgres => "fleet-postgres",
    }
}

/// Writes that part of the page anew; it stands between two marks.
pub fn replace(docs: &Path, part: &str, section: &str) -> Result<(), BenchError> {
    let file = |error| BenchError::File("docs", error);
    let (begin, end) = (format!("<!-- {part}: begin -->"), format!("<!-- {part}: end -->"));
    let page = docs.join("benchmarks.md");
    let text = fs::read_to_string(&page).map_err(file)?;
    let parts =
        text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, behind) = parts
        .ok_or_else(|| BenchError::Child(format!("benchmarks.md has no {begin} and {end}")))?;
    fs::write(page, format!("{before}{begin}\n{section}\n{end}{behind}")).map_err(file)
}

/// Rows of a table: promises with their figures.
pub fn promises(promises: &[Promise]) -> String {
    let row = |promise: &Promise| {
        let holds = if promise.holds() { "yes" } else { "**no**" };
        let (what, unit) = (promise.what.trim(), promise.unit);
        format!("| {what} | {:.2} {unit} | {:.2} {unit} | {holds} |", promise.limit, promise.figure)
    };
    let rows: Vec<String> = promises.iter().map(row).collect();
    format!("| promise | limit | figure | holds |\n| --- | --- | --- | --- |\n{}", rows.join("\n"))
}

fn section(figures: &Figures) -> String {
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
    let part = part(figures.engine);
    format!(
        "{} agents, enrolled in {:.1} s, connected in {:.1} s, all of what they said taken {:.0} s later. Stopping \
         took {:.2} s.\n\n\
         {}\n\n\
         A grant for one user; seconds from the request:\n\n\
         | servers | orders | queued | p50 | p99 | last answer | confirmed | bare p99 | bare last |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n{}\n\n\
         ![fan-out]({part}-fan-out.svg)\n\n![an edit]({part}-edit.svg)",
        figures.count,
        figures.enrolled,
        figures.connected,
        figures.settled,
        figures.stopped,
        promises(&figures.promises()),
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
