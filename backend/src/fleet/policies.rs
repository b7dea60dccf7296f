//! Sudo policies: rules with a name, which grants give.

use bastio_protocol::api::{NamedPolicy, PolicyName};
use bastio_protocol::{SudoPolicy, Username};

use super::edit::Edit;
use super::history::Thing;
use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::store;

impl Fleet {
    /// All policies, by name.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn policies(&self, _proof: &Admin) -> Result<Vec<NamedPolicy>, FleetError> {
        let mut db = self.store.read().await?;
        Ok(store::policies::list(&mut db).await?)
    }

    /// Adds a policy, once it is certain that it can be written as a rule.
    ///
    /// # Errors
    /// [`FleetError::PolicyTaken`], [`FleetError::BadPolicy`], [`FleetError::Store`].
    pub async fn add_policy(
        &self,
        proof: &Admin,
        new: &NamedPolicy,
    ) -> Result<NamedPolicy, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        if store::policies::exists(edit.db(), &new.name).await? {
            return Err(FleetError::PolicyTaken(new.name.clone()));
        }
        set(&mut edit, "sudo-policy.add", new).await?;
        edit.keep().await?;
        Ok(new.clone())
    }

    /// Removes a policy that no grant gives.
    ///
    /// # Errors
    /// [`FleetError::NoSuchPolicy`], [`FleetError::PolicyInUse`], [`FleetError::Store`].
    pub async fn remove_policy(
        &self,
        proof: &Admin,
        name: &PolicyName,
    ) -> Result<NamedPolicy, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let all = store::policies::list(edit.db()).await?;
        let policy = all.into_iter().find(|policy| policy.name == *name);
        let policy = policy.ok_or_else(|| FleetError::NoSuchPolicy(name.clone()))?;
        remove(&mut edit, name).await?;
        edit.keep().await?;
        Ok(policy)
    }
}

/// Makes a policy so within an edit, once it is certain that it can be written as a rule.
pub(super) async fn set(
    edit: &mut Edit<'_>,
    action: &str,
    new: &NamedPolicy,
) -> Result<(), FleetError> {
    let policy = SudoPolicy {
        commands: new.commands.clone(),
        run_as: new.run_as.clone(),
        password: new.password,
        not_before: None,
        not_after: None,
    };
    let anybody = Username::parse("somebody").expect("a good login name");
    policy.to_sudoers(&anybody, None).map_err(|error| FleetError::BadPolicy(error.to_string()))?;
    edit.remember(Thing::Policy(&new.name)).await?;
    let now = edit.now();
    store::policies::set(edit.db(), &new.name, &policy, now).await?;
    edit.note(action, None, None, &in_words(new)).await
}

/// Removes a policy within an edit, unless a grant gives it.
pub(super) async fn remove(edit: &mut Edit<'_>, name: &PolicyName) -> Result<(), FleetError> {
    let grants = store::policies::used_by(edit.db(), name).await?;
    if !grants.is_empty() {
        return Err(FleetError::PolicyInUse { name: name.clone(), grants });
    }
    edit.remember(Thing::Policy(name)).await?;
    store::policies::remove(edit.db(), name).await?;
    edit.note("sudo-policy.remove", None, None, name.as_str()).await
}

/// `dba: /usr/bin/psql as postgres`
fn in_words(policy: &NamedPolicy) -> String {
    let commands: Vec<String> = policy.commands.iter().map(ToString::to_string).collect();
    let commands = if commands.is_empty() { "everything".to_owned() } else { commands.join(", ") };
    let run_as: Vec<&str> = policy.run_as.iter().map(Username::as_str).collect();
    let run_as =
        if run_as.is_empty() { String::new() } else { format!(" as {}", run_as.join(" or ")) };
    let password = if policy.password { " with password" } else { "" };
    format!("{}: {commands}{run_as}{password}", policy.name)
}
