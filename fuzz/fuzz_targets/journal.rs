//! The agent's journal: a state written is the state read, and bytes that were changed, cut or invented are never
//! believed beyond what was written.
#![no_main]

use bastio_agent::journal::record::{Record, State, Tail, digest_of, replay};
use libfuzzer_sys::fuzz_target;

/// Builds a state out of the input: two bytes say what happens to which entry.
fn build(input: &[u8]) -> State {
    let mut state = State::default();
    for step in input.chunks_exact(2) {
        let (number, body) = (u64::from(step[1] % 16), vec![step[1]; usize::from(step[0])]);
        state.apply(match step[0] % 4 {
            0 => Record::Received { number, sequence: u64::from(step[1]), body },
            1 => Record::Done { number, digest: digest_of(&body), answer: body },
            2 => Record::Acknowledged { number },
            _ => Record::Sequence { highest: u64::from(step[1]) },
        });
    }
    state
}

fuzz_target!(|input: &[u8]| {
    // As it is: whatever it says, reading ends.
    let _ = replay(input);
    let state = build(input);
    let mut bytes = state.encode();
    assert_eq!(replay(&bytes), (state.clone(), Tail::Whole));
    let Some((&place, &mask)) = input.first().zip(input.last()) else { return };
    let at = usize::from(place) * bytes.len() / 256;
    bytes[at] ^= mask;
    let (read, _) = replay(&bytes);
    assert!(read.sequence <= state.sequence);
    for (number, entry) in &read.entries {
        assert_eq!(state.entries.get(number), Some(entry), "nothing is invented");
    }
});
