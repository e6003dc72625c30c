//! Whether an account may switch power, found out without switching.
//!
//! Resetting a system takes the privilege `ConfigureComponents` (the privilege registry of DSP8011). A role grants it, and
//! an account names its role.

use super::{
    config::ResourcePath,
    error::RedfishError,
    resource::{Account, AccountService, Collection, Role},
    visit::{Visit, root},
};

/// So many accounts are looked at, to find our own. BMCs have 10 to 20.
const MAX_ACCOUNTS: usize = 32;
const CONFIGURE_COMPONENTS: &str = "ConfigureComponents";

/// Makes sure that the account has the right, or that it isn't told and somebody saw that it has.
pub(super) async fn check(visit: &mut Visit) -> Result<(), RedfishError> {
    match told(visit).await? {
        Told::Granted => Ok(()),
        Told::Denied(role) => {
            let what = format!("its role {role:?} lacks {CONFIGURE_COMPONENTS}");
            Err(RedfishError::NoRight { what })
        }
        Told::Nothing if visit.config().drilled => Ok(()),
        Told::Nothing => Err(RedfishError::RightUntold),
    }
}

enum Told {
    Granted,
    Denied(String),
    Nothing,
}

async fn told(visit: &mut Visit) -> Result<Told, RedfishError> {
    let Some(service) = optional(root(visit).await.map(|root| root.accounts))?.flatten() else {
        return Ok(Told::Nothing);
    };
    let service = visit.get("the account service", service.path.as_str()).await;
    let Some(accounts) = optional(service.map(|service: AccountService| service.accounts))?.flatten() else {
        return Ok(Told::Nothing);
    };
    let members = visit.get("the accounts", accounts.path.as_str()).await;
    let Some(members) = optional(members.map(|collection: Collection| collection.members))? else {
        return Ok(Told::Nothing);
    };
    for member in in_order(visit, members.into_iter().map(|link| link.path)) {
        let Some(account) = optional(visit.get::<Account>("an account", member.as_str()).await)? else { continue };
        if account.name.as_deref() == Some(visit.config().user.as_str()) {
            return role(visit, account).await;
        }
    }
    Ok(Told::Nothing)
}

/// The account whose path ends with our name first: many BMCs name them so.
fn in_order(visit: &Visit, paths: impl Iterator<Item = ResourcePath>) -> Vec<ResourcePath> {
    let end = format!("/{}", visit.config().user.as_str());
    let mut paths: Vec<ResourcePath> = paths.take(MAX_ACCOUNTS).collect();
    paths.sort_by_key(|path| !path.as_str().ends_with(&end));
    paths
}

async fn role(visit: &mut Visit, account: Account) -> Result<Told, RedfishError> {
    let id = account.role.unwrap_or_default();
    // The roles that every service has (DSP0266, section 13.2.5).
    match id.as_str() {
        "Administrator" | "Operator" => return Ok(Told::Granted),
        "ReadOnly" | "None" | "NoAccess" => return Ok(Told::Denied(id)),
        _ => {}
    }
    let Some(link) = account.links.and_then(|links| links.role) else { return Ok(Told::Nothing) };
    let found = optional(visit.get::<Role>("the account's role", link.path.as_str()).await)?;
    Ok(match found.and_then(|role| role.privileges) {
        Some(privileges) if privileges.iter().any(|privilege| privilege == CONFIGURE_COMPONENTS) => Told::Granted,
        Some(_) => Told::Denied(id.chars().filter(|c| !c.is_control()).take(64).collect()),
        None => Told::Nothing,
    })
}

/// What the BMC refuses to show, or doesn't have, tells nothing. All else that goes wrong is an error.
fn optional<T>(answer: Result<T, RedfishError>) -> Result<Option<T>, RedfishError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(RedfishError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
