//! The main job, end to end: the demo itself is the test, since it checks every step it tells.

use std::process::Command;

use bastio_tests::{binary, require_root};

#[test]
fn the_demo_goes_through() {
    require_root!();
    let demo = Command::new(binary("bastio-demo").unwrap()).arg("run").output().unwrap();
    let told = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success(), "{told}\n{}", String::from_utf8_lossy(&demo.stderr));
    assert_eq!(told.matches("uid=0(root)").count(), 2, "{told}");
    assert_eq!(told.matches("Permission denied").count(), 4, "{told}");
    assert!(!told.contains("bst_"), "a secret on the screen: {told}");
}
