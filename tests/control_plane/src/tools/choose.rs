//! Which source each binary comes from, given what exists. Pure: it reads nothing itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::version::Version;

/// The binaries that a control plane and its users need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Program {
    Etcd,
    ApiServer,
    ControllerManager,
    Kubectl,
    Helm,
}

impl Program {
    pub(super) const fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
        }
    }
}

/// Where a binary came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A folder on `PATH`; kubectl and helm only.
    Path,
    /// The folder that `KUBEBUILDER_ASSETS` names.
    Assets,
    /// The official envtest archive, once downloaded and checked; kept in the cache.
    Archive,
    /// A build from Go modules; kept in the cache.
    Build,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Path => "PATH",
            Self::Assets => "KUBEBUILDER_ASSETS",
            Self::Archive => "envtest archive (cached)",
            Self::Build => "Go modules (cached build)",
        })
    }
}

/// The binaries of one source.
pub(super) type Stock = BTreeMap<Program, Version>;

/// The binaries of all sources at the moment. The two cached ones fill as archives are unpacked and builds end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) path: Stock,
    pub(super) assets: Stock,
    pub(super) built: Stock,
    pub(super) archived: Stock,
}

/// A source for each binary; `None` where it has to be downloaded or built first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// etcd and kube-apiserver always come together.
    pub(super) servers: Option<Source>,
    pub(super) controller_manager: Option<Source>,
    pub(super) kubectl: Option<Source>,
    pub(super) helm: Option<Source>,
}

impl Survey {
    pub(super) fn stock(&self, source: Source) -> &Stock {
        match source {
            Source::Path => &self.path,
            Source::Assets => &self.assets,
            Source::Archive => &self.archived,
            Source::Build => &self.built,
        }
    }

    fn version(&self, source: Source, program: Program) -> Option<Version> {
        self.stock(source).get(&program).copied()
    }

    /// The API server's version, where that source can run a control plane at all: it has etcd and an API server, and
    /// for that API server a controller manager exists or (`pinned`) could be built.
    fn servers(&self, source: Source, pinned: Version) -> Result<Version, String> {
        let (Some(_), Some(api_server)) =
            (self.version(source, Program::Etcd), self.version(source, Program::ApiServer))
        else {
            return Err("does not hold both etcd and kube-apiserver".into());
        };
        let own = self.version(source, Program::ControllerManager);
        if own.is_some_and(|own| own.may_manage(api_server)) || pinned.may_manage(api_server) {
            Ok(api_server)
        } else {
            Err(format!(
                "its kube-apiserver is {api_server}, it holds no kube-controller-manager for that, and the one that \
                 would be built is {pinned}"
            ))
        }
    }

    /// Why the `KUBEBUILDER_ASSETS` folder can't run a control plane, if it can't.
    pub(super) fn against_assets(&self, pinned: Version) -> Option<String> {
        self.servers(Source::Assets, pinned).err()
    }

    /// The order of the sources: what the user set, then the cache. `pinned` is the version that would be built.
    pub(super) fn choose(&self, pinned: Version) -> Choice {
        let servers = [Source::Assets, Source::Build, Source::Archive]
            .into_iter()
            .find_map(|source| Some((source, self.servers(source, pinned).ok()?)));
        let api_server = servers.map_or(pinned, |(_, version)| version);
        let first = |sources: &[Source], program, suits: &dyn Fn(Version) -> bool| {
            sources.iter().copied().find(|source| self.version(*source, program).is_some_and(suits))
        };
        Choice {
            servers: servers.map(|(source, _)| source),
            controller_manager: first(
                if matches!(servers, Some((Source::Assets, _))) {
                    &[Source::Assets, Source::Build]
                } else {
                    &[Source::Build]
                },
                Program::ControllerManager,
                &|version| version.may_manage(api_server),
            ),
            kubectl: first(
                &[Source::Path, Source::Assets, Source::Build, Source::Archive],
                Program::Kubectl,
                &|version| version.suits_api_server(api_server),
            ),
            helm: first(&[Source::Path, Source::Build], Program::Helm, &Version::suits_chart),
        }
    }
}

impl Choice {
    /// The binaries that have to be downloaded or built first.
    pub(super) fn missing(&self) -> Vec<Program> {
        [
            (self.servers, Program::Etcd),
            (self.servers, Program::ApiServer),
            (self.controller_manager, Program::ControllerManager),
            (self.kubectl, Program::Kubectl),
            (self.helm, Program::Helm),
        ]
        .into_iter()
        .filter_map(|(source, program)| source.is_none().then_some(program))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Program::{ApiServer, ControllerManager, Etcd, Helm, Kubectl};

    fn stock(programs: &[Program], kubernetes: &str) -> Stock {
        programs
            .iter()
            .map(|program| {
                let version = match program {
                    Etcd => "v3.6.8",
                    Helm => "v3.22.0",
                    _ => kubernetes,
                };
                (*program, version.parse().unwrap())
            })
            .collect()
    }

    /// Written short: servers, controller manager, kubectl, helm.
    fn letters(choice: Choice) -> String {
        [choice.servers, choice.controller_manager, choice.kubectl, choice.helm]
            .map(|source| match source {
                None => '-',
                Some(Source::Path) => 'P',
                Some(Source::Assets) => 'A',
                Some(Source::Build) => 'B',
                Some(Source::Archive) => 'E',
            })
            .iter()
            .collect()
    }

    #[test]
    fn the_first_source_that_suits_wins() {
        const ALL: &[Program] = &[Etcd, ApiServer, ControllerManager, Kubectl, Helm];
        const ENVTEST: &[Program] = &[Etcd, ApiServer, Kubectl];
        let nothing = Survey::default;
        let cases = [
            ("nothing there: everything is got", nothing(), "----"),
            ("a full build in the cache", Survey { built: stock(ALL, "v1.36.3"), ..nothing() }, "BBBB"),
            (
                "an unpacked archive lacks the controller manager",
                Survey { archived: stock(ENVTEST, "v1.36.2"), ..nothing() },
                "E-E-",
            ),
            (
                "the archive with a built controller manager",
                Survey {
                    archived: stock(ENVTEST, "v1.36.2"),
                    built: stock(&[ControllerManager, Helm], "v1.36.3"),
                    ..nothing()
                },
                "EBEB",
            ),
            (
                "a full build goes before the archive",
                Survey { archived: stock(ENVTEST, "v1.36.2"), built: stock(ALL, "v1.36.3"), ..nothing() },
                "BBBB",
            ),
            (
                "assets go before the cache, and lean on it for what they lack",
                Survey { assets: stock(ENVTEST, "v1.36.0"), built: stock(ALL, "v1.36.3"), ..nothing() },
                "ABAB",
            ),
            ("assets that hold all three servers", Survey { assets: stock(ALL, "v1.30.0"), ..nothing() }, "AAA-"),
            (
                "assets of a version that no controller manager is there for",
                Survey { assets: stock(ENVTEST, "v1.33.0"), built: stock(ALL, "v1.36.3"), ..nothing() },
                "BBBB",
            ),
            (
                "assets without etcd give no servers, but what they hold may serve",
                Survey {
                    assets: stock(&[ApiServer, Kubectl], "v1.36.0"),
                    built: stock(&[Etcd, ApiServer], "v1.36.3"),
                    ..nothing()
                },
                "B-A-",
            ),
            (
                "kubectl and helm on PATH go first where they suit",
                Survey { path: stock(&[Kubectl, Helm], "v1.35.4"), built: stock(ALL, "v1.36.3"), ..nothing() },
                "BBPP",
            ),
            (
                "a kubectl on PATH that is too old is passed over",
                Survey { path: stock(&[Kubectl], "v1.32.4"), built: stock(ALL, "v1.36.3"), ..nothing() },
                "BBBB",
            ),
            (
                "whether a kubectl suits depends on the API server that was chosen",
                Survey {
                    path: stock(&[Kubectl], "v1.32.4"),
                    assets: stock(ALL, "v1.32.0"),
                    built: stock(ALL, "v1.36.3"),
                    ..nothing()
                },
                "AAPB",
            ),
            ("servers are never taken from PATH", Survey { path: stock(ALL, "v1.36.3"), ..nothing() }, "--PP"),
        ];
        for (name, survey, expected) in cases {
            assert_eq!(letters(survey.choose("v1.36.3".parse().unwrap())), expected, "{name}");
        }
    }

    #[test]
    fn missing_names_exactly_what_has_no_source() {
        let survey = Survey { archived: stock(&[Etcd, ApiServer, Kubectl], "v1.36.2"), ..Survey::default() };
        assert_eq!(survey.choose("v1.36.3".parse().unwrap()).missing(), [ControllerManager, Helm]);
    }
}
