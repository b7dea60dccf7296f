//! Signed orders and hellos of version 2: what parses is written and read again as the same, and an order nobody
//! signed is never good.
#![no_main]

use bastio_protocol::{AgentHello, BackendHello, Order, VerifyingKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Some(Ok(order)) = Order::parse(body) {
        let again = Order::parse(&order.to_json()).expect("an order").expect("what was written");
        assert!(again == order);
        let key: VerifyingKey =
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".parse().expect("a good key");
        assert!(!order.verify(&key), "the seeds hold no order signed by this key");
        let _ = order.payload();
    }
    if let Some(Ok(hello)) = BackendHello::parse(body) {
        assert!(BackendHello::parse(&hello.to_json()).is_some_and(|again| again.is_ok()));
    }
    if let Some(Ok(hello)) = AgentHello::parse(body) {
        assert!(AgentHello::parse(&hello.to_json()).is_some_and(|again| again.is_ok()));
    }
});
