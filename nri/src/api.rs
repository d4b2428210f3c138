//! The messages, generated at build time from `proto/nri.proto`, and what is said about them in more than one place.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::struct_excessive_bools,
    reason = "generated; the comments come from nri.proto"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/nri.pkg.api.v1alpha1.rs"));
}

pub use generated::*;

/// The service that plugins offer.
pub(crate) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that the runtime offers.
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// The version of the interface that plugins are told.
pub(crate) const NRI_VERSION: &str = "v0.12.1";

/// A set of events, as plugins subscribe to it: bit N - 1 stands for event N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet(u32);

impl EventSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// Every event there is.
    pub const ALL: Self = Self((1 << (Event::Last as u32 - 1)) - 1);

    /// A subscription as it came: none set means all.
    ///
    /// # Errors
    /// With the bits that stand for no event.
    pub fn subscribed(mask: i32) -> Result<Self, u32> {
        match mask.cast_unsigned() {
            0 => Ok(Self::ALL),
            bits if bits & !Self::ALL.0 != 0 => Err(bits & !Self::ALL.0),
            bits => Ok(Self(bits)),
        }
    }

    /// With one more.
    #[must_use]
    pub fn with(self, event: Event) -> Self {
        Self(self.0 | Self::bit(event))
    }

    /// With those of `other`.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is among them.
    pub fn contains(self, event: Event) -> bool {
        self.0 & Self::bit(event) != 0
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    fn bit(event: Event) -> u32 {
        match event as u32 {
            0 => 0,
            number => 1 << (number - 1),
        }
    }
}

/// A key of an adjustment: a thing to set, or one to take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked<'a> {
    /// To be set.
    Kept(&'a str),
    /// To be taken away: the key stood after a minus sign.
    Removed(&'a str),
}

impl<'a> Marked<'a> {
    /// Reads the mark of a key.
    pub fn of(key: &'a str) -> Self {
        match key.strip_prefix('-') {
            Some(key) => Self::Removed(key),
            None => Self::Kept(key),
        }
    }

    /// The key without its mark.
    pub fn key(self) -> &'a str {
        match self {
            Self::Kept(key) | Self::Removed(key) => key,
        }
    }
}

/// The key that takes `key` away.
pub fn removal(key: &str) -> String {
    format!("-{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_of_nothing_is_of_everything() {
        assert_eq!(EventSet::subscribed(0), Ok(EventSet::ALL));
        let one = EventSet::subscribed(1).unwrap();
        assert!(one.contains(Event::RunPodSandbox) && !one.contains(Event::StopPodSandbox));
        let all = EventSet::subscribed((1 << 14) - 1).unwrap();
        assert!(all.contains(Event::ValidateContainerAdjustment));
        assert_eq!(EventSet::subscribed(1 << 14), Err(1 << 14));
        assert_eq!(EventSet::subscribed(-1), Err(!EventSet::ALL.bits()));
        assert!(!EventSet::ALL.contains(Event::Unknown));
    }

    #[test]
    fn a_minus_sign_marks_for_removal() {
        assert_eq!(Marked::of("-A"), Marked::Removed("A"));
        assert_eq!(Marked::of("A-"), Marked::Kept("A-"));
        assert_eq!(Marked::of(&removal("A")).key(), "A");
    }
}
