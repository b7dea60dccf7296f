//! The life of an action: written down, carried out, its answer written down, handed over, forgotten when the backend
//! has it. This file must not know sockets or threads, nor how the journal keeps what it is told.

use bastio_protocol::{FeedbackMessage, Status, Username, VerifyingKey};

use super::receipt::Notary;
use super::tend::Site;
use super::work::{Effect, Extent, Work};
use super::{Processor, System, bounds};
use crate::journal::{Journal, JournalError, Taken, Ticket};
use crate::ledger::Ledger;
use crate::pipe::{ToConnector, ToProcessor};
use crate::reconcile::Beat;

/// A processor that carries each action out once, whatever is killed when.
#[derive(Debug)]
pub(super) struct Once<A> {
    processor: Processor<A>,
    journal: Journal,
    /// Whether an action is flushed to the disk before it is carried out.
    flushes_first: bool,
    /// Whether saving the ledger failed since the last action.
    has_failed: bool,
    /// Who signs receipts.
    notary: Option<Notary>,
}

/// As many bytes of edits may wait for the ledger's file as it has itself, so that it costs no more to write than they did;
/// but at least 32 KiB, and at most 256 KiB, since they are kept in memory.
const EDITS_AT_LEAST: usize = 32 * 1024;
const EDITS_AT_MOST: usize = 256 * 1024;

/// Work that a crash cut short.
#[derive(Debug)]
pub(super) struct Begun {
    ticket: Ticket,
    body: Vec<u8>,
    pub(super) work: Work,
}

/// What became of an action.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For the connector.
    pub(super) answer: ToConnector,
    /// How it ended, if it was carried out now or refused.
    pub(super) carried_out: Option<Status>,
}

impl<A: System> Once<A> {
    pub(super) fn new(mut processor: Processor<A>, journal: Journal) -> Self {
        processor.catch_up(journal.edits());
        Self { processor, journal, flushes_first: false, has_failed: false, notary: None }
    }

    /// The same, and each action is on the disk before it is carried out: after a loss of power nobody takes for drift
    /// what was done last.
    #[must_use]
    pub(super) fn flushing_first(self, flushes_first: bool) -> Self {
        Self { flushes_first, ..self }
    }

    /// The same, and its answers carry receipts.
    #[must_use]
    pub(super) fn certifying(self, notary: Option<Notary>) -> Self {
        Self { notary, ..self }
    }

    /// The key that signs receipts.
    pub(super) fn receipt_key(&self) -> Option<VerifyingKey> {
        self.notary.as_ref().map(Notary::verifying_key)
    }

    /// Does the work; its answer with a receipt, where all of the work was to be done.
    fn process(
        &mut self,
        work: &Work,
        extent: Extent,
        beat: &mut Beat<'_>,
    ) -> Option<FeedbackMessage> {
        let mut feedback = self.processor.process(work, extent, beat)?;
        if let Some(notary) = self.notary.as_ref().filter(|_| extent == Extent::All) {
            // A journal that cannot be read has no number: then it says none.
            let sequence = self.journal.highest_sequence().unwrap_or_default();
            self.processor.certify(notary, work, &mut feedback, sequence);
        }
        Some(feedback)
    }

    /// Whether the ledger waits for a quiet moment to be written down.
    pub(super) fn is_ledger_behind(&self) -> bool {
        !self.has_failed && self.processor.ledger.as_ref().is_some_and(Ledger::is_behind)
    }

    /// Writes down what the journal keeps for the ledger.
    pub(super) fn save_ledger(&mut self) {
        match self.processor.save_ledger() {
            Some(revision) => self.journal.saved(revision),
            None => self.has_failed = true,
        }
    }

    /// Whether a ledger is written down before the next answer.
    fn is_due(&self, ledger: &Ledger) -> bool {
        let limit = ledger.file_len().clamp(EDITS_AT_LEAST, EDITS_AT_MOST);
        ledger.must_save() || self.journal.edits_held() > limit
    }

    /// The work is done: nothing of it is lost any more.
    fn write_down(&mut self, ticket: Ticket, body: &[u8], feedback: &FeedbackMessage) {
        self.has_failed = false;
        if self.processor.ledger.as_ref().is_some_and(|it| self.is_due(it)) {
            self.save_ledger();
        }
        let edits = self.processor.ledger.as_mut().and_then(Ledger::take_edits);
        if !self.journal.done(ticket, body, feedback.to_json(), edits) {
            self.save_ledger();
        }
    }

    /// What a crash cut short, oldest first; what cannot be read is dropped. To be carried out or given up before
    /// anything else.
    pub(super) fn begun(&mut self) -> Vec<Begun> {
        let mut begun = Vec::new();
        for (ticket, body) in self.journal.unfinished() {
            let unusable = match ToProcessor::parse(&body).map(Work::from_message) {
                Ok(Some(work)) => {
                    begun.push(Begun { ticket, body, work });
                    continue;
                }
                Ok(None) => "it is no work".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(why = unusable, "an action in the journal cannot be read: dropped");
            self.journal.acknowledge(&[ticket]);
        }
        begun
    }

    /// Carries it out again; false when it is cut short once more.
    pub(super) fn redo(&mut self, begun: &Begun, beat: &mut Beat<'_>) -> bool {
        let mid = begun.work.mid().text();
        tracing::warn!(mid, "an action was cut short: carrying it out again");
        let feedback = self.process(&begun.work, Extent::All, beat);
        let is_done = feedback.is_some();
        feedback.into_iter().for_each(|feedback| self.end(begun, feedback));
        is_done
    }

    /// Does not carry it out again; why is the answer to it.
    pub(super) fn give_up(&mut self, begun: &Begun, why: &str) {
        let mid = begun.work.mid().text();
        tracing::error!(mid, why, "an action was cut short and is not carried out again");
        self.end(begun, begun.work.reply(Status::Failed, why));
    }

    fn end(&mut self, begun: &Begun, mut feedback: FeedbackMessage) {
        bounds::fit(&mut feedback, self.journal.held());
        self.write_down(begun.ticket, &begun.body, &feedback);
    }

    /// A new connector: the answers that it must deliver, oldest first.
    pub(super) fn new_connector(&mut self) -> Vec<ToConnector> {
        let mut answers = Vec::new();
        for (ticket, body) in self.journal.new_connector() {
            match ToConnector::parse(&body) {
                Ok(answer) => {
                    self.journal.hand_over(Some(ticket));
                    answers.push(answer);
                }
                Err(error) => {
                    tracing::error!(%error, "an answer in the journal cannot be read: dropped");
                    self.journal.acknowledge(&[ticket]);
                }
            }
        }
        answers
    }

    /// The server as it is tended; none where no ledger is kept.
    pub(super) fn site(&mut self) -> Option<Site<'_, A>> {
        self.processor.site()
    }

    /// The account that is never locked out.
    pub(super) fn break_glass(&self) -> Option<&Username> {
        self.processor.break_glass.as_ref()
    }

    /// A new connection to the backend.
    pub(super) fn new_line(&mut self) {
        self.journal.new_line();
    }

    /// The backend has so many more answers.
    pub(super) fn delivered(&mut self, count: usize) {
        self.journal.delivered(count);
    }

    /// How many answers the connector has and the backend, as far as we know, has not.
    pub(super) fn undelivered(&self) -> usize {
        self.journal.handed()
    }

    /// The highest number of an order that was obeyed.
    pub(super) fn highest_sequence(&mut self) -> Result<u64, JournalError> {
        self.journal.highest_sequence()
    }

    /// The action that comes next was ordered under this number.
    pub(super) fn record_sequence(&mut self, sequence: u64) {
        self.journal.record_sequence(sequence);
    }

    /// Answers what is no action for the journal.
    pub(super) fn reply(&mut self, feedback: FeedbackMessage) -> Outcome {
        self.journal.hand_over(None);
        let carried_out = Some(feedback.status);
        Outcome { answer: ToConnector::Feedback(feedback), carried_out }
    }

    /// Carries work out, unless that was done before, and counts its answer as handed over. `beat`
    /// is called now and then when it takes long, and may stop it: then it stays begun, and has no answer yet.
    pub(super) fn answer(&mut self, work: &Work, beat: &mut Beat<'_>) -> Option<Outcome> {
        let body = work.to_json();
        let stored = match self.journal.take(&body, bounds::room(work)) {
            Ok(Taken::New(ticket)) => {
                if self.flushes_first
                    && let Err(error) = self.journal.flush()
                {
                    return self.without_journal(work, &error, beat);
                }
                return self.carry_out(work, &body, ticket, beat);
            }
            Ok(Taken::Answered) => {
                return Some(Outcome { answer: ToConnector::Answered, carried_out: None });
            }
            Ok(Taken::Known(ticket, stored)) => ToConnector::parse(&stored).map(|it| (ticket, it)),
            Err(error) => return self.without_journal(work, &error, beat),
        };
        match stored {
            Ok((ticket, answer)) => {
                self.journal.hand_over(Some(ticket));
                Some(Outcome { answer, carried_out: None })
            }
            Err(error) => {
                tracing::error!(%error, "an answer in the journal cannot be read: done again");
                let ticket = self.journal.skip();
                self.carry_out(work, &body, ticket, beat)
            }
        }
    }

    fn carry_out(
        &mut self,
        work: &Work,
        body: &[u8],
        ticket: Ticket,
        beat: &mut Beat<'_>,
    ) -> Option<Outcome> {
        let mut feedback = self.process(work, Extent::All, beat)?;
        bounds::fit(&mut feedback, self.journal.held());
        let carried_out = Some(feedback.status);
        self.write_down(ticket, body, &feedback);
        self.journal.hand_over(Some(ticket));
        Some(Outcome { answer: ToConnector::Feedback(feedback), carried_out })
    }

    /// Access must be closed even where nothing can be written down; everything else waits until it can.
    fn without_journal(
        &mut self,
        work: &Work,
        error: &JournalError,
        beat: &mut Beat<'_>,
    ) -> Option<Outcome> {
        tracing::error!(mid = work.mid().text(), %error, "cannot keep the journal");
        let mut feedback = match work.effect() {
            Effect::Looks => self.process(work, Extent::All, beat)?,
            Effect::Closes => {
                self.journal.skip();
                self.process(work, Extent::All, beat)?
            }
            Effect::Both => {
                self.journal.skip();
                let mut feedback = self.process(work, Extent::Closing, beat)?;
                feedback.status = Status::Failed;
                let done = feedback.feedback;
                feedback.feedback = format!("cannot keep the journal: {error}; {done}");
                feedback
            }
            Effect::Opens => {
                let text = format!("cannot keep the journal: {error}; nothing was done");
                work.reply(Status::Failed, text)
            }
        };
        self.save_ledger();
        bounds::fit(&mut feedback, self.journal.held());
        self.journal.hand_over(None);
        let carried_out = Some(feedback.status);
        Some(Outcome { answer: ToConnector::Feedback(feedback), carried_out })
    }
}

#[cfg(test)]
mod tests;
