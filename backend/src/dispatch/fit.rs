//! What agents of version 1 can take of an action, and what they cannot.
//!
//! Pure.

use bastio_protocol::{Action, ActionMessage, Algorithm, KeyPolicy, PublicKey, Removal};

/// The action as an agent of version 1 can take it, or why it cannot: nothing is ever given without
/// its restriction or end.
pub(super) fn for_version_1(mut message: ActionMessage) -> Result<ActionMessage, &'static str> {
    match &mut message.action {
        Action::AddUser { .. }
        | Action::UpdateUser { .. }
        | Action::AddKey { .. }
        | Action::RemoveKey { .. }
        | Action::RemoveUser { removal: None } => Ok(message),
        Action::RemoveUser { removal } if *removal == Some(Removal::Delete) => {
            *removal = None;
            Ok(message)
        }
        Action::RemoveUser { .. } => Err("not sent: this server's agent speaks version 1, which \
                                          deletes homes; update the agent, or add the user again \
                                          and remove it with --home delete"),
        Action::SetUser { .. } | Action::LockUser | Action::UnlockUser => {
            Err("not sent: this server's agent speaks version 1, which knows no ends, policies, \
                 key options, uids or locks; update the agent and run: bastio server sync")
        }
        Action::EndSessions => Err("not sent: this server's agent speaks version 1, which cannot \
                                    end sessions; update the agent"),
    }
}

/// The action as the original agent can take it, or why it cannot: it drops its connection at
/// names and keys that it does not know. It compares keys as text, so comments are left out.
pub(super) fn for_original_agent(
    mut message: ActionMessage,
) -> Result<ActionMessage, &'static str> {
    if !message.username.fits_version_1() {
        return Err("not sent: this server's agent speaks version 1, which knows no login names \
                    with '-' or '.' or of 32 characters; update the agent or grant another login");
    }
    if let Action::AddKey { public_key } | Action::RemoveKey { public_key } = &mut message.action {
        if public_key.algorithm() != Algorithm::Rsa {
            return Err("not sent: this server's agent is the original one, which knows RSA keys \
                        only; update the agent or give the person an RSA key");
        }
        if let Ok(bare) = PublicKey::parse(&public_key.without_comment(), &KeyPolicy::ANY) {
            *public_key = bare;
        }
    }
    Ok(message)
}
