//! The host of [`Fake`]: the one in memory that reconciling is tested with.

use bastio_protocol::{AbsolutePath, KeyGrant, Removal, Sudo};

use super::*;
use crate::reconcile::host::{
    AccountChange, AccountFacts, AccountHost, FoundHome, FoundKeys, KeyHost, SudoHost, SudoState,
};

macro_rules! delegate {
    ($host:ident: $(fn $verb:ident($($name:ident: $type:ty),*) -> $result:ty;)*) => {
        impl $host for Fake {
            $(fn $verb(&self, $($name: $type),*) -> Result<$result, AccountsError> {
                $host::$verb(&self.host, $($name),*)
            })*
        }
    };
}

delegate! { AccountHost:
    fn managed() -> Vec<Username>;
    fn give_back(name: &Username, sudo_group: bool) -> ();
    fn facts(name: &Username) -> Option<AccountFacts>;
    fn has_group(name: &str) -> bool;
    fn has_program(path: &AbsolutePath) -> bool;
    fn holder_of_uid(uid: u32) -> Option<String>;
    fn found_home(name: &Username, home: Option<&AbsolutePath>) -> Option<FoundHome>;
    fn create(name: &Username, new: &NewAccount) -> Account;
    fn take_over(name: &Username) -> ();
    fn modify(name: &Username, change: &AccountChange) -> ();
    fn lock(name: &Username) -> ();
    fn unlock(name: &Username, expires: Option<i64>) -> ();
    fn is_running(name: &Username) -> bool;
    fn end_sessions(name: &Username) -> usize;
    fn remove(name: &Username, removal: Removal) -> HomeFate;
}

delegate! { KeyHost:
    fn keys(account: &Account) -> FoundKeys;
    fn put_back(name: &Username, lines: &[String]) -> Change;
    fn set_keys(name: &Username, wanted: &[KeyGrant], gone: &[PublicKey]) -> Change;
}

delegate! { SudoHost:
    fn sudo(account: &Account) -> SudoState;
    fn intended_sudo(name: &Username, sudo: &Sudo, until: Option<i64>) -> SudoState;
    fn set_sudo(name: &Username, sudo: &Sudo, until: Option<i64>) -> Change;
}
