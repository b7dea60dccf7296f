//! Tells the linker which functions run in every agent, so that they lie together: `link-order.txt`, one symbol a line.
//!
//! A process maps its program in pieces of 64 KiB, each as a whole when any of it runs. With what runs scattered over all
//! of the program, all of it would count as the memory of an idle agent; most is for enrolment and the command line.
//! Symbols that are not there (any more) do no harm. `bench/link-order` makes the list. Other linkers than the one that
//! comes with Rust are left alone: not all know the option.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link-order.txt");
    println!("cargo::rerun-if-env-changed=BASTIO_LINK_MAP");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_usual =
        is("TARGET", "x86_64-unknown-linux-gnu") && env::var_os("RUSTC_LINKER").is_none();
    if !is("PROFILE", "release") || !is_usual {
        return;
    }
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let list = Path::new(&folder).join("link-order.txt");
    let argument = |text: &str| println!("cargo::rustc-link-arg-bin=bastio-agent=-Wl,{text}");
    argument(&format!("--symbol-ordering-file={}", list.display()));
    argument("--no-warn-symbol-ordering");
    if let Ok(map) = env::var("BASTIO_LINK_MAP") {
        argument(&format!("-Map={map}"));
    }
}
