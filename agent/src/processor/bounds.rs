//! Feedback that fits: a frame is bounded, and so is what may wait for the backend. What is left out
//! is said. This file must not know what a detail means.

use bastio_protocol::{Action, Detail, FeedbackMessage, V2_LIMIT};

use super::work::Work;

/// Largest feedback with a detail, in bytes: what the wire allows, with room for the frame.
const LIMIT: usize = V2_LIMIT - 64 * 1024;
/// Longest text for people, in bytes.
const TEXT_LIMIT: usize = 4 * 1024;
/// So many bytes of actions and feedbacks may wait for the backend before details are left out
/// (16 MiB).
pub(super) const HELD_LIMIT: usize = 16 * 1024 * 1024;

/// What a plain action leaves in the journal at most, in bytes: its short answer, and the account in the ledger.
const PLAIN_ROOM: u64 = 128 * 1024;

/// So many bytes must fit the journal behind the work: its answer, and what it changes in the ledger.
pub(super) fn room(work: &Work) -> u64 {
    match work {
        Work::Action(message) => match &message.action {
            // Its edit of the ledger is about as long as itself, which a frame bounds.
            Action::SetUser { .. } => 2 * V2_LIMIT as u64,
            _ => PLAIN_ROOM,
        },
        Work::Host(_) => V2_LIMIT as u64,
    }
}

/// Cuts the feedback until it fits. `held` bytes wait for the backend already.
pub(super) fn fit(feedback: &mut FeedbackMessage, held: usize) {
    // Without a detail it is one of version 1, whose texts are what they are.
    let Some(detail) = &mut feedback.detail else { return };
    if let Some((at, _)) = feedback.feedback.char_indices().find(|(at, _)| *at >= TEXT_LIMIT) {
        feedback.feedback.truncate(at);
        feedback.feedback.push_str("...");
    }
    if held > HELD_LIMIT {
        let warning = "the detail was left out: too much waits for the backend already";
        **detail = Detail { warnings: vec![warning.to_owned()], ..Detail::default() };
        return;
    }
    let whole = detail.clone();
    // Of each list this many thousandths.
    let mut part = 1000;
    while feedback.to_json().len() > LIMIT && part > 0 {
        part = part * 3 / 4;
        feedback.detail = Some(Box::new(cut(&whole, part)));
    }
}

/// That many thousandths of each list, and how much that leaves out.
fn cut(whole: &Detail, part: usize) -> Detail {
    let mut detail = whole.clone();
    let mut left_out = 0;
    keep(&mut detail.changes, part, &mut left_out);
    keep(&mut detail.warnings, part, &mut left_out);
    keep(&mut detail.failures, part, &mut left_out);
    if let Some(report) = &mut detail.report {
        keep(&mut report.users, part, &mut left_out);
        keep(&mut report.groups, part, &mut left_out);
        keep(&mut report.sudo_rules, part, &mut left_out);
        report.truncated = true;
    }
    detail.warnings.push(format!("{left_out} entries were left out: they do not fit a frame"));
    detail
}

fn keep<T>(list: &mut Vec<T>, part: usize, left_out: &mut usize) {
    let kept = list.len() * part / 1000;
    *left_out += list.len() - kept;
    list.truncate(kept);
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{FailureNote, HostReport, MessageId, Status};

    use super::*;

    fn feedback(failures: usize, text: &str) -> FeedbackMessage {
        let note = |number| FailureNote { username: None, text: format!("{number} {text}") };
        let report = HostReport { sudo_rules: vec![text.to_owned(); 10], ..HostReport::default() };
        let detail = Detail {
            failures: (0..failures).map(note).collect(),
            report: Some(Box::new(report)),
            ..Detail::default()
        };
        let mut feedback = FeedbackMessage::new(MessageId::from_number(1), Status::Failed, "many");
        feedback.detail = Some(Box::new(detail));
        feedback
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let mut small = feedback(10, "because");
        fit(&mut small, 0);
        assert_eq!(small, feedback(10, "because"));
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        let mut large = feedback(5_000, &"x".repeat(400));
        fit(&mut large, 0);
        assert!(large.to_json().len() <= LIMIT && large.to_json().len() > LIMIT / 2);
        let detail = large.detail.unwrap();
        let kept = detail.failures.len() + detail.report.as_ref().unwrap().sudo_rules.len();
        let said = format!("{} entries were left out", 5_010 - kept);
        assert!(detail.warnings[0].starts_with(&said), "{:?}", detail.warnings);
        assert!(detail.report.unwrap().truncated);
    }

    #[test]
    fn one_entry_that_never_fits_is_left_out() {
        let mut large = feedback(1, &"x".repeat(V2_LIMIT));
        fit(&mut large, 0);
        assert!(large.to_json().len() <= LIMIT);
    }

    #[test]
    fn nothing_large_is_added_to_what_waits() {
        let mut small = feedback(10, "because");
        fit(&mut small, HELD_LIMIT + 1);
        let detail = small.detail.unwrap();
        assert!(detail.failures.is_empty() && detail.warnings[0].contains("left out"));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut long = FeedbackMessage { feedback: "é".repeat(TEXT_LIMIT), ..feedback(0, "") };
        fit(&mut long, 0);
        assert!(long.feedback.len() <= TEXT_LIMIT + 3);
        assert!(long.feedback.ends_with("é..."));
    }

    #[test]
    fn the_longest_answer_fits_the_room_for_it() {
        use bastio_protocol::{ActionMessage, HostMessage, HostRequest, Username, WantedAccount};
        let mid = || MessageId::from_number(1);
        let wanted = Box::new(WantedAccount::default());
        let action = |action| {
            let username = Username::parse("alice").unwrap();
            Work::Action(ActionMessage { mid: mid(), username, action })
        };
        let host = HostMessage { mid: mid(), request: HostRequest::ReportState };
        for long in [action(Action::SetUser { wanted }), Work::Host(host)] {
            assert!(room(&long) > (LIMIT + 1024) as u64, "{}", long.name());
        }
        assert_eq!(room(&action(Action::LockUser)), PLAIN_ROOM);
    }
}
