//! What can go wrong, and where: a fault strikes one call, named by what it asks for and how often that was asked before.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What kind of call it is; faults differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// A read of the API server.
    KubeRead,
    /// A write to the API server.
    KubeWrite,
    /// A watch.
    Watch,
    /// A read of Graph, or signing in.
    GraphRead,
    /// A write to Graph.
    GraphWrite,
}

/// What goes wrong at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// No connection: the request never leaves, and Graph's client knows that. (kube's tells no difference.)
    NotConnected,
    /// The connection breaks before the request arrives.
    LostBefore,
    /// The request has its effect; the answer is lost.
    LostAfter,
    /// The request arrives after the client has given up.
    Late,
    /// 500, nothing done.
    Failed,
    /// 503, nothing done.
    Unavailable,
    /// 503 although the request had its effect.
    UnavailableAfter,
    /// 429 with `Retry-After`.
    Throttled,
    /// Neither an effect nor an answer.
    Hang,
    /// The request has its effect; half of the answer's body arrives.
    HalfBody,
    /// The process dies before the request leaves.
    KillBefore,
    /// The process dies after the request had its effect.
    KillAfter,
    /// The process dies; its request arrives while the next one runs.
    KillLate,
    /// A second process starts and the first goes on for a while, as when a pod is replaced.
    Overlap,
    /// The wall clock of the operator's machine goes back by an hour.
    ClockBack,
    /// The wall clock goes forward by two days, and back a minute later.
    ClockGlitch,
    /// The wall clock goes back by an hour, and forward again a minute later.
    ClockDip,
    /// For two minutes no connection to Graph can be made.
    GraphOutage,
    /// For two minutes no connection to the API server can be made.
    KubeOutage,
    /// Somebody else writes to the object just before.
    Touched,
    /// A person suspends the VppToken just before it is read, and ends the suspension five minutes later.
    Suspends,
    /// A person deletes the VppToken and makes it again just before it is read or written.
    Remade,
    /// Another field manager restores the status that the object had some writes ago.
    Restored,
    /// Graph's lists and GETs hide all tokens for two minutes.
    Hidden,
    /// A person uploads a newer file in the portal.
    PortalRenews,
    /// A person changes a setting in the portal.
    PortalEdits,
    /// A person uploads the file of a VppToken that has no token yet in the portal.
    PortalCreates,
    /// The stream of a watch breaks.
    WatchBroken,
    /// A watch is told that its version is too old.
    WatchGone,
    /// The events of a watch come 20 s late, those of other kinds in time.
    WatchLate,
    /// A watch brings nothing until it ends after five minutes.
    WatchSilent,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::NotConnected,
        Self::LostBefore,
        Self::LostAfter,
        Self::Late,
        Self::Failed,
        Self::Unavailable,
        Self::UnavailableAfter,
        Self::Throttled,
        Self::Hang,
        Self::HalfBody,
        Self::KillBefore,
        Self::KillAfter,
        Self::KillLate,
        Self::Overlap,
        Self::ClockBack,
        Self::ClockGlitch,
        Self::ClockDip,
        Self::GraphOutage,
        Self::KubeOutage,
        Self::Touched,
        Self::Suspends,
        Self::Remade,
        Self::Restored,
        Self::Hidden,
        Self::PortalRenews,
        Self::PortalEdits,
        Self::PortalCreates,
        Self::WatchBroken,
        Self::WatchGone,
        Self::WatchLate,
        Self::WatchSilent,
    ];

    /// Whether it can strike this kind of call, and differs there from another fault.
    pub fn strikes(self, kind: CallKind) -> bool {
        use CallKind::{GraphRead, GraphWrite, KubeRead, KubeWrite, Watch};
        match self {
            // A read has no effect: that it is lost before or after is one.
            Self::NotConnected => matches!(kind, GraphRead | GraphWrite),
            Self::Failed
            | Self::Unavailable
            | Self::Throttled
            | Self::LostBefore
            | Self::Hang
            | Self::HalfBody
            | Self::KillBefore
            | Self::Overlap => kind != Watch,
            Self::LostAfter | Self::KillAfter | Self::Late | Self::UnavailableAfter | Self::KillLate => {
                matches!(kind, KubeWrite | GraphWrite)
            }
            Self::GraphOutage => matches!(kind, GraphRead | GraphWrite),
            Self::KubeOutage => matches!(kind, KubeRead | KubeWrite),
            Self::ClockBack | Self::ClockGlitch | Self::ClockDip => matches!(kind, KubeWrite | GraphWrite | GraphRead),
            Self::Touched | Self::Restored => kind == KubeWrite,
            Self::Suspends => kind == KubeRead,
            Self::Remade => matches!(kind, KubeRead | KubeWrite),
            Self::PortalCreates => matches!(kind, KubeWrite | GraphRead | GraphWrite),
            Self::Hidden | Self::PortalRenews | Self::PortalEdits => matches!(kind, GraphRead | GraphWrite),
            Self::WatchBroken | Self::WatchGone | Self::WatchLate | Self::WatchSilent => kind == Watch,
        }
    }

    /// Whether it strikes in lives, too: what a script expects of a VppToken need not come of one that is made anew, so random
    /// histories alone have that.
    pub fn strikes_in_lives(self) -> bool {
        self != Self::Remade
    }

    /// Whether it may hide from the operator that a write of its own had its effect: a process that dies at any call may do so.
    pub fn hides_an_effect(self, kind: CallKind) -> bool {
        let is_write = matches!(kind, CallKind::KubeWrite | CallKind::GraphWrite);
        (self != Self::HalfBody || is_write)
            && matches!(
                self,
                Self::LostAfter
                    | Self::Late
                    | Self::UnavailableAfter
                    | Self::HalfBody
                    | Self::KillBefore
                    | Self::KillAfter
                    | Self::KillLate
                    | Self::Overlap
            )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.to_string() == text)
            .ok_or_else(|| format!("no fault is called {text}"))
    }
}

/// A call: what it asks for, and how many such calls there were before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// For example `POST vppTokens`.
    pub key: String,
    /// From 0.
    pub nth: u32,
}

impl Address {
    /// A number that depends on nothing else, and differs between most addresses.
    pub fn mix(&self) -> u64 {
        let bytes = self.key.bytes().chain(self.nth.to_le_bytes());
        bytes.fold(0x811C_9DC5, |mixed, byte| (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3) % 0xFFFF_FFFB)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.key, self.nth)
    }
}

/// The faults of one history. As text: `KEY#NTH=FAULT`, separated by semicolons.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Faults(pub BTreeMap<Address, Fault>);

impl Faults {
    /// One.
    pub fn one(address: Address, fault: Fault) -> Self {
        Self(BTreeMap::from([(address, fault)]))
    }

    /// These and one more.
    pub fn and(&self, address: Address, fault: Fault) -> Self {
        let mut all = self.clone();
        all.0.insert(address, fault);
        all
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|(address, fault)| format!("{address}={fault}")).collect();
        f.write_str(&texts.join(";"))
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (address, fault) = part.rsplit_once('=').ok_or_else(|| format!("{part} lacks =FAULT"))?;
            let (key, nth) = address.rsplit_once('#').ok_or_else(|| format!("{address} lacks #NTH"))?;
            let nth = nth.parse().map_err(|_| format!("{nth} is no number"))?;
            all.0.insert(Address { key: key.to_owned(), nth }, fault.parse()?);
        }
        Ok(all)
    }
}
