//! Hints of more than a line, named for the errors that they belong to. Must not know when one is given.

pub(super) const GROUP_IN_USE: &str = "end these grants first (bastio grant rm ID), or all with the group: bastio group rm \
     NAME --with-grants";
pub(super) const SUDO_BY_GROUP: &str = "nothing was changed; take the person out of the group (bastio group member rm), or \
     end the group's grant";
pub(super) const TOO_LONG_AGO: &str = "nothing was changed; apply a file that was exported then, or restore a backup \
     elsewhere and export from there";
pub(super) const NOT_THERE_ALONE: &str = "nothing was changed; change the labels of the server (bastio server label), or \
     undo it for all servers: leave --server out";
pub(super) const UID_TAKEN: &str = "nothing was changed; ids are nobody else's ever after, also of people who were \
     removed: choose another";
pub(super) const SYSTEM_NAME: &str = "choose a name of the person's own, or another --login; to take that account over \
     all the same, name it in accounts.system_names of the backend's configuration";
pub(super) const OVERTAKEN: &str = "nothing was changed; look at it as it is now, then repeat this with --if-revision \
     and the new number, or without it to do so whatever others did";
pub(super) const CONFLICT: &str = "nothing was changed; `bastio grant ls` shows the grants: remove one of them first, \
     or give both the same policy and options";
pub(super) const UNFIT_OPTIONS: &str = "nothing was changed; leave the option out, or use it where all keys of the person \
     are on security keys (bastio key ls USER)";
pub(super) const TWO_OPTIONS: &str = "nothing was changed; the same option must not be in both: see bastio key ls USER \
     and bastio grant ls";
pub(super) const NOT_ASKED: &str =
    "nothing was changed; `bastio server show NAME` tells what is to be decided about it";
pub(super) const LEFT_BEHIND: &str = "nothing was changed; say what it has in its place: another primary group, or a home \
     below /home; once that is done it may be left out";
pub(super) const NEEDS_CONFIRMATION: &str = "nothing was changed; see all of it with --dry-run, and if you mean it, say so: \
     --yes-really";
