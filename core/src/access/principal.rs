//! Who calls, with the roles that the access file grants.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a caller may do. Each role includes those before it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads the runs of its namespaces.
    Viewer,
    /// Submits runs, and changes its own.
    Submitter,
    /// Changes all runs of its namespaces.
    Operator,
    /// Changes the service itself: frameworks and plugins.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Submitter, Self::Operator, Self::Admin];

    /// The role as the access file spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The namespaces of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    All,
    Only(BTreeSet<String>),
}

impl Namespaces {
    /// Whether a namespace is one of these.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }

    /// As the access file lists them.
    pub fn listed(&self) -> Vec<&str> {
        match self {
            Self::All => vec!["*"],
            Self::Only(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

/// A role in some namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub role: Role,
    pub namespaces: Namespaces,
}

/// A caller. The owner of the jobs that it submits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: Option<String>,
    grants: Vec<Grant>,
    namespaces: Namespaces,
}

/// What a caller may not do, in a sentence for that caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("namespace {given:?} is not allowed for {caller}; allowed: {}", allowed.join(", "))]
    Namespace {
        given: String,
        caller: String,
        allowed: Vec<String>,
    },
    #[error("{operation} needs the role {least} in {scope}; {caller} has not got it")]
    Role {
        operation: String,
        least: Role,
        scope: String,
        caller: String,
    },
    #[error(
        "{operation} needs the role operator in namespace {namespace} for a run of somebody else; \
         {caller} may change only its own"
    )]
    NotOwner {
        operation: String,
        namespace: String,
        caller: String,
    },
}

impl Principal {
    pub fn new(name: &str, grants: Vec<Grant>) -> Self {
        let mut namespaces = BTreeSet::new();
        let mut has_all = false;
        for grant in &grants {
            match &grant.namespaces {
                Namespaces::All => has_all = true,
                Namespaces::Only(names) => namespaces.extend(names.iter().cloned()),
            }
        }
        Self {
            name: Some(name.to_string()),
            grants,
            namespaces: match has_all {
                true => Namespaces::All,
                false => Namespaces::Only(namespaces),
            },
        }
    }

    /// The caller who may do everything. Jobs get an owner only if it has a name.
    pub fn unrestricted(name: Option<&str>) -> Self {
        let grant = Grant {
            role: Role::Admin,
            namespaces: Namespaces::All,
        };
        Self {
            name: name.map(str::to_string),
            grants: vec![grant],
            namespaces: Namespaces::All,
        }
    }

    /// The name; none on a service without an access file.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The grants, as the access file has them.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The namespaces in which this caller has a role.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Whether this caller may read the jobs of a namespace.
    pub fn may_see(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The highest role in a namespace.
    pub fn role_in(&self, namespace: &str) -> Option<Role> {
        let grants = self.grants.iter();
        let here = grants.filter(|grant| grant.namespaces.contains(namespace));
        here.map(|grant| grant.role).max()
    }

    /// The highest role in any namespace.
    pub fn highest_role(&self) -> Option<Role> {
        self.grants.iter().map(|grant| grant.role).max()
    }

    /// The highest role that applies to all namespaces, and so to the service as a whole.
    pub fn role_everywhere(&self) -> Option<Role> {
        let grants = self.grants.iter();
        let everywhere = grants.filter(|grant| grant.namespaces == Namespaces::All);
        everywhere.map(|grant| grant.role).max()
    }

    /// Checks that the caller has a role in a namespace. A namespace in which it has none gives the
    /// same answer whether it exists or not.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn check(&self, operation: &str, least: Role, namespace: &str) -> Result<Role, Forbidden> {
        let Some(role) = self.role_in(namespace) else {
            return Err(self.no_namespace(namespace));
        };
        match role >= least {
            true => Ok(role),
            false => Err(self.lacks(operation, least, format!("namespace {namespace}"))),
        }
    }

    /// Checks that the caller may change a job of an owner.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn check_change(
        &self,
        operation: &str,
        namespace: &str,
        owner: Option<&str>,
    ) -> Result<(), Forbidden> {
        let role = self.check(operation, Role::Submitter, namespace)?;
        if role >= Role::Operator || owner.is_some() && owner == self.name() {
            return Ok(());
        }
        Err(Forbidden::NotOwner {
            operation: operation.to_string(),
            namespace: namespace.to_string(),
            caller: self.to_string(),
        })
    }

    /// The refusal of a namespace in which the caller has no role.
    pub fn no_namespace(&self, namespace: &str) -> Forbidden {
        Forbidden::Namespace {
            given: namespace.to_string(),
            caller: self.to_string(),
            allowed: self
                .namespaces
                .listed()
                .into_iter()
                .map(str::to_string)
                .collect(),
        }
    }

    /// The refusal of an operation for lack of a role.
    pub fn lacks(&self, operation: &str, least: Role, scope: impl Into<String>) -> Forbidden {
        Forbidden::Role {
            operation: operation.to_string(),
            least,
            scope: scope.into(),
            caller: self.to_string(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name().unwrap_or("this caller"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> Namespaces {
        Namespaces::Only(names.iter().map(ToString::to_string).collect())
    }

    fn grant(role: Role, namespaces: Namespaces) -> Grant {
        Grant { role, namespaces }
    }

    #[test]
    fn the_highest_role_of_several_grants_counts_in_each_namespace() {
        let grants = vec![
            grant(Role::Viewer, only(&["a", "b"])),
            grant(Role::Operator, only(&["b"])),
        ];
        let caller = Principal::new("alice", grants);
        assert_eq!(caller.role_in("a"), Some(Role::Viewer));
        assert_eq!(caller.role_in("b"), Some(Role::Operator));
        assert_eq!(caller.role_in("c"), None);
        assert_eq!(caller.role_everywhere(), None);
        assert!(caller.check("deleteJob", Role::Operator, "b").is_ok());
        let refused = caller.check("deleteJob", Role::Operator, "c").unwrap_err();
        let reported = "namespace \"c\" is not allowed for alice; allowed: a, b";
        assert_eq!(refused.to_string(), reported);
    }

    #[test]
    fn a_submitter_changes_its_own_runs_and_an_operator_all() {
        let submitter = Principal::new("alice", vec![grant(Role::Submitter, only(&["a"]))]);
        let change = |owner| submitter.check_change("deleteJob", "a", owner);
        assert_eq!(change(Some("alice")), Ok(()));
        assert!(matches!(
            change(Some("bob")),
            Err(Forbidden::NotOwner { .. })
        ));
        assert!(matches!(change(None), Err(Forbidden::NotOwner { .. })));
        let operator = Principal::new("olga", vec![grant(Role::Operator, only(&["a"]))]);
        assert_eq!(operator.check_change("deleteJob", "a", None), Ok(()));
        let viewer = Principal::new("vera", vec![grant(Role::Viewer, only(&["a"]))]);
        let refused = viewer.check_change("deleteJob", "a", Some("vera"));
        assert!(matches!(refused, Err(Forbidden::Role { .. })));
    }
}
