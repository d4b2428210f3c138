//! CPU shares (v1, 2 to 262144) to weight (v2, 1 to 10000) and back.
//!
//! The curve goes through (2, 1), (1024, 100) and (262144, 10000), so that the defaults of both meet; runc and crun
//! use the same one.

/// log10(weight) = l² / 612 + 125 l / 612 − 7 / 34, with l = log2(shares).
pub(super) fn from_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // Rounding noise must not lift an exact value to the next one.
    ((10f64.powf(exponent) - 1e-9).ceil() as u64).clamp(1, 10_000)
}

/// What a group holds of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuShares {
    /// v1's own unit.
    Exact(u64),
    /// v2's weight, which several values have in common.
    Weight(u64),
}

impl CpuShares {
    /// In v1's unit: `asked`, where 0 is nothing, when the group holds what that comes to, else what is nearest the curve.
    pub fn like(self, asked: u64) -> u64 {
        match self {
            Self::Exact(shares) => shares,
            Self::Weight(weight) if asked > 0 && from_shares(asked) == weight => asked,
            Self::Weight(weight) => to_shares(weight),
        }
    }
}

/// The shares whose weight is `weight`, nearest the curve.
fn to_shares(weight: u64) -> u64 {
    let weight = weight.clamp(1, 10_000);
    let c = 612.0 * ((weight as f64).log10() + 7.0 / 34.0);
    let l = (-125.0 + (15_625.0 + 4.0 * c).sqrt()) / 2.0;
    (l.exp2().round() as u64).clamp(2, 262_144)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meets_the_fixed_points() {
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(from_shares(shares), weight, "{shares}");
        }
        for (weight, shares) in [(1, 2), (100, 1024), (10_000, 262_144)] {
            assert_eq!(to_shares(weight), shares, "{weight}");
        }
    }

    #[test]
    fn what_was_asked_for_is_told_while_it_is_held() {
        for asked in [2, 3, 512, 1000, 1024, 4096, 262_144] {
            let held = CpuShares::Weight(from_shares(asked));
            assert_eq!(held.like(asked), asked);
            assert_ne!(CpuShares::Weight(5000).like(asked), asked);
            assert_eq!(CpuShares::Exact(7).like(asked), 7);
        }
        assert_eq!(CpuShares::Weight(100).like(512), 1024);
        for (weight, shares) in [(1, 2), (100, 1024)] {
            assert_eq!(CpuShares::Weight(weight).like(0), shares);
        }
    }

    #[test]
    fn grows_and_returns() {
        for weight in 1..10_000 {
            assert!(to_shares(weight) <= to_shares(weight + 1));
            let there = from_shares(to_shares(weight));
            assert!(there.abs_diff(weight) <= 1, "{weight} became {there}");
        }
    }
}
