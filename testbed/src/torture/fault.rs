//! What is done to a remediation, and to the cluster around it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

use super::phase::Phase;
use crate::stage::Strategy;

/// Both of them.
pub(super) const STRATEGIES: [Strategy; 2] = [Strategy::ResourceDeletion, Strategy::OutOfServiceTaint];

/// A fault, or a deed of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    BmcSilent,
    BmcHangs,
    BmcErrors,
    BmcBusy,
    BmcIgnores,
    BmcLate,
    BmcRefuses,
    BmcRestarts,
    WrongPassword,
    SecretReplaced,
    KubeletCut,
    HarmlessEdit,
    OrderEdit,
    Deleted,
    TimedOut,
    NodeReplaced,
    PowerButton,
    PowerOwner,
    OperatorKilled,
    LeaderPaused,
    OperatorCutOff,
    ApiRestarted,
    ApiMoved,
}

/// A box of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) fault: Fault,
    pub(super) phase: Phase,
    pub(super) strategy: Strategy,
}

impl Fault {
    pub(super) const ALL: [Self; 23] = [
        Self::BmcSilent,
        Self::BmcHangs,
        Self::BmcErrors,
        Self::BmcBusy,
        Self::BmcIgnores,
        Self::BmcLate,
        Self::BmcRefuses,
        Self::BmcRestarts,
        Self::WrongPassword,
        Self::SecretReplaced,
        Self::KubeletCut,
        Self::HarmlessEdit,
        Self::OrderEdit,
        Self::Deleted,
        Self::TimedOut,
        Self::NodeReplaced,
        Self::PowerButton,
        Self::PowerOwner,
        Self::OperatorKilled,
        Self::LeaderPaused,
        Self::OperatorCutOff,
        Self::ApiRestarted,
        Self::ApiMoved,
    ];

    /// What it is, for people.
    pub(super) fn story(self) -> &'static str {
        match self {
            Self::BmcSilent => "BMC silent",
            Self::BmcHangs => "BMC accepts and never answers",
            Self::BmcErrors => "BMC answers 500",
            Self::BmcBusy => "BMC busy (503)",
            Self::BmcIgnores => "BMC accepts and ignores",
            Self::BmcLate => "BMC late",
            Self::BmcRefuses => "BMC refuses commands",
            Self::BmcRestarts => "BMC restarts, then says Off untold",
            Self::WrongPassword => "password wrong until rotated",
            Self::SecretReplaced => "Secret deleted and made anew",
            Self::KubeletCut => "kubelet cut off, or back",
            Self::HarmlessEdit => "spec edited, same order",
            Self::OrderEdit => "spec edited, another device",
            Self::Deleted => "remediation deleted",
            Self::TimedOut => "NHC gives it up",
            Self::NodeReplaced => "Node replaced under its name",
            Self::PowerButton => "power button pressed",
            Self::PowerOwner => "another owner switches on",
            Self::OperatorKilled => "operator killed (-9)",
            Self::LeaderPaused => "leader stopped past its lease",
            Self::OperatorCutOff => "operator cut off from the API",
            Self::ApiRestarted => "API server restarts",
            Self::ApiMoved => "moved to an API server that is behind",
        }
    }

    /// After it, a remediation does not go through its other phases any more.
    pub(super) fn ends_it(self) -> bool {
        matches!(self, Self::Deleted | Self::TimedOut | Self::NodeReplaced)
    }

    /// It befalls every remediation in flight, not one.
    pub(super) fn is_of_the_cluster(self) -> bool {
        matches!(
            self,
            Self::OperatorKilled | Self::LeaderPaused | Self::OperatorCutOff | Self::ApiRestarted | Self::ApiMoved
        )
    }
}

impl FromStr for Cell {
    type Err = Error;

    /// Reads what its Display wrote.
    fn from_str(text: &str) -> Result<Self> {
        let [fault, phase, strategy] = text.split('/').collect::<Vec<_>>()[..] else {
            bail!("{text:?} is not fault/phase/strategy");
        };
        let fault = Fault::ALL.into_iter().find(|each| each.to_string() == fault);
        let phase = Phase::ALL.into_iter().find(|each| each.to_string() == phase);
        let strategy = STRATEGIES.into_iter().find(|each| each.name() == strategy);
        let of = |what| move || format!("no {what} in {text:?}");
        Ok(Self {
            fault: fault.with_context(of("fault"))?,
            phase: phase.with_context(of("phase"))?,
            strategy: strategy.with_context(of("strategy"))?,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.fault, self.phase, self.strategy.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_as_it_is_written() {
        let cell = Cell { fault: Fault::BmcLate, phase: Phase::Proving, strategy: Strategy::OutOfServiceTaint };
        assert_eq!(cell.to_string().parse::<Cell>().unwrap(), cell);
        "BmcLate/Nowhere/OutOfServiceTaint".parse::<Cell>().unwrap_err();
    }
}
