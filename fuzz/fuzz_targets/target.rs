//! Selectors: what parses is written and read again as the same, and never selects more than it says.
#![no_main]

use bastio_protocol::{ServerName, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(target) = text.parse::<Target>() else { return };
    assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(&target));
    let server = ServerName::parse("a-server-that-nobody-names").expect("a name");
    let included = target.includes(&server, &std::collections::BTreeMap::new());
    assert!(!included || text.contains('*') || text.contains("!=") || text.contains("notin") || text.contains(server.as_str()));
});
