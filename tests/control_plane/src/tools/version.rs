//! Version numbers as the tools print them, and which of them go together. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `major.minor.patch`; what follows (`-dispatcher`, `+g1a2b3c`) does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
}

impl Version {
    /// The first version in what a tool printed about itself.
    pub(crate) fn find_in(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | ':')).find_map(|word| word.parse().ok())
    }

    /// kubectl is supported within one minor version of the API server, either way.
    pub(crate) fn suits_api_server(self, api_server: Version) -> bool {
        self.major == api_server.major && self.minor.abs_diff(api_server.minor) <= 1
    }

    /// A controller manager may be one minor version older than its API server, never newer.
    pub(crate) fn may_manage(self, api_server: Version) -> bool {
        self.major == api_server.major && (self.minor == api_server.minor || self.minor + 1 == api_server.minor)
    }

    /// helm 3.14 and later, and helm 4.
    pub(crate) fn suits_chart(self) -> bool {
        (self.major == 3 && self.minor >= 14) || self.major == 4
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let core = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next()?;
            let mut numbers = core.split('.').map(|number| number.parse::<u64>().ok());
            let version = Self { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
            numbers.next().is_none().then_some(version)
        };
        parse().ok_or_else(|| format!("`{text}` is no version of the form v1.2.3"))
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn the_version_is_found_in_what_each_tool_prints() {
        let cases = [
            ("Kubernetes v1.36.3\n", Some("v1.36.3")),
            (
                "etcd Version: 3.6.8\nGit SHA: Not provided\nGo Version: go1.26.8\nGo OS/Arch: linux/amd64\n",
                Some("v3.6.8"),
            ),
            ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0\n", Some("v1.32.4")),
            ("v3.22.0+g144cf8c\n", Some("v3.22.0")),
            ("v4.3.1\n", Some("v4.3.1")),
            ("{\n \"gitVersion\": \"v1.35.0-rc.1\",", Some("v1.35.0")),
            ("go version go1.26.8 linux/amd64", None),
            ("", None),
            ("v1.36", None),
            ("1.2.3.4", None),
        ];
        for (printed, expected) in cases {
            assert_eq!(Version::find_in(printed), expected.map(version), "{printed:?}");
        }
    }

    #[test]
    fn kubectl_suits_within_one_minor_version_either_way() {
        for (kubectl, suits) in [
            ("v1.34.9", false),
            ("v1.35.0", true),
            ("v1.36.9", true),
            ("v1.37.0", true),
            ("v1.38.0", false),
            ("v2.36.0", false),
        ] {
            assert_eq!(version(kubectl).suits_api_server(version("v1.36.3")), suits, "{kubectl}");
        }
    }

    #[test]
    fn a_controller_manager_is_never_newer_than_its_api_server() {
        for (manager, suits) in [("v1.34.0", false), ("v1.35.0", true), ("v1.36.9", true), ("v1.37.0", false)] {
            assert_eq!(version(manager).may_manage(version("v1.36.3")), suits, "{manager}");
        }
    }

    #[test]
    fn helm_suits_from_3_14_on() {
        for (helm, suits) in [
            ("v2.17.0", false),
            ("v3.13.9", false),
            ("v3.14.0", true),
            ("v3.22.0", true),
            ("v4.0.0", true),
            ("v5.0.0", false),
        ] {
            assert_eq!(version(helm).suits_chart(), suits, "{helm}");
        }
    }
}
