//! Tells the linker which functions run in every agent, so that they lie together: `link-order.txt`, one symbol a line, with
//! `*` for what differs from build to build.
//!
//! A process maps its program in pieces of 64 KiB, each as a whole when any of it runs. With what runs scattered over all
//! of the program, all of it would count as the memory of an idle agent; most is for enrolment and the command line.
//! Symbols that are not there (any more) do no harm. `bench/link-order` makes the list; with the variable BASTIO_LINK_MAP
//! the program is linked without it, and with a map for that. The linker is told in its own script
//! language, which that of Rust, that of the packages (zig) and GNU's know; one chosen by hand (`-fuse-ld`) is left alone.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link-order.txt");
    println!("cargo::rerun-if-env-changed=BASTIO_LINK_MAP");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_chosen = variable("CARGO_ENCODED_RUSTFLAGS").contains("fuse-ld");
    if variable("PROFILE") != "release"
        || variable("TARGET") != "x86_64-unknown-linux-gnu"
        || is_chosen
    {
        return Ok(());
    }
    let argument = |text: &str| println!("cargo::rustc-link-arg-bin=bastio-agent=-Wl,{text}");
    if let Ok(map) = env::var("BASTIO_LINK_MAP") {
        argument(&format!("-Map={map}"));
        return Ok(());
    }
    let list = Path::new(&variable("CARGO_MANIFEST_DIR")).join("link-order.txt");
    let script = Path::new(&variable("OUT_DIR")).join("link-order.ld");
    fs::write(&script, in_order(&fs::read_to_string(list)?))?;
    argument(&format!("-T,{}", script.display()));
    Ok(())
}

/// A linker script that puts the sections of these symbols, one after another, in front of all other code.
fn in_order(list: &str) -> String {
    let mut script = "SECTIONS { .text.always : {\n".to_owned();
    for symbol in list.lines() {
        // A text grows without errors.
        let _ = writeln!(script, "*(.text.{symbol})");
    }
    script + "} } INSERT BEFORE .text;\n"
}
