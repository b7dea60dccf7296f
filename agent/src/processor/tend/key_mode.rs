//! Where keys lie, changed at the start as the configuration says: proved by a login, and then guarded like every change
//! that could cut somebody off. This file must not know how sshd is told.

use super::{Site, Tender};
use crate::guard::file::SavedFile;
use crate::guard::{Event, Pending};
use crate::reconcile::host::Host;
use crate::sshd::{KeyMode, ModeError, Switch};

impl Tender {
    /// What an earlier run has left is brought back (true), or waits for the rest of its time; then keys are brought to
    /// where they are to lie. There is no connector yet: its first connection will be a new one, and confirm it.
    pub(in crate::processor) fn begin<H: Host>(
        &mut self,
        mode: KeyMode,
        site: &mut Site<'_, H>,
    ) -> bool {
        let switch = self.switch(site);
        let was_cut = switch.take_back_unfinished().unwrap_or_else(|error| {
            tracing::error!(%error, "a change of where keys lie was cut short, and stands");
            false
        });
        let found = site.ledger.guard().cloned();
        let is_rolled_back = found.as_ref().is_some_and(|pending| {
            tracing::warn!(what = pending.what, "a change was not confirmed yet");
            let is_unwanted = || switch.mode().is_ok_and(|now| now != mode);
            if pending.sshd.is_some() && (was_cut || is_unwanted()) {
                self.roll_back(pending, "nobody waits for it any more", site);
            } else {
                self.carry_on(Event::Found(pending.clone(), site.rules.now), site);
            }
            site.ledger.guard().is_none()
        });
        // What nobody confirmed a moment ago is not tried again at once.
        let is_over = is_rolled_back && found.is_some_and(|pending| pending.sshd.is_some());
        if !is_over && let Err(error) = self.settle(mode, &switch, site) {
            tracing::error!(%error, "keys lie where they lay before");
        }
        is_rolled_back
    }

    fn settle<H: Host>(
        &mut self,
        mode: KeyMode,
        switch: &Switch,
        site: &mut Site<'_, H>,
    ) -> Result<(), ModeError> {
        if switch.mode()? == mode {
            return Ok(());
        }
        if let Some(pending) = site.ledger.guard() {
            let what = &pending.what;
            let why = format!("{what}: not confirmed yet; it is tried again at the next start");
            return Err(ModeError::Cannot(why));
        }
        let made = switch.to(mode, |saved| self.keep_mode(mode, saved, site));
        if made.is_ok() {
            let seconds = self.guard.limit().as_secs();
            tracing::warn!(?mode, seconds, "must be confirmed by a new connection");
        }
        self.carry_on(Event::Made { is_changed: made.is_ok() }, site);
        made
    }

    fn keep_mode<H: Host>(
        &mut self,
        mode: KeyMode,
        saved: SavedFile,
        site: &mut Site<'_, H>,
    ) -> Result<(), String> {
        let mode = match mode {
            KeyMode::Home => "home",
            KeyMode::Managed => "managed",
        };
        let pending = Pending {
            what: format!("where keys lie (keys = \"{mode}\")"),
            until: self.until(site),
            files: Vec::new(),
            account: None,
            sshd: Some(saved),
        };
        self.write_down(pending, site.ledger).map_err(|error| error.to_string())
    }

    pub(super) fn finish_mode<H: Host>(&self, pending: &Pending, site: &Site<'_, H>) {
        if pending.sshd.is_none() {
            return;
        }
        if let Err(error) = self.switch(site).finish() {
            tracing::error!(%error, "keys stay where they are, and sshd reads them there, too");
        }
    }

    /// What could not be brought back.
    pub(super) fn roll_back_mode<H: Host>(
        &self,
        pending: &Pending,
        site: &Site<'_, H>,
    ) -> Vec<String> {
        let Some(saved) = &pending.sshd else { return Vec::new() };
        match self.switch(site).back(saved) {
            Ok(failures) => failures,
            Err(error) => vec![error.to_string()],
        }
    }

    fn switch<H: Host>(&self, site: &Site<'_, H>) -> Switch {
        Switch::new(self.state.clone(), site.rules.break_glass.clone())
    }
}
