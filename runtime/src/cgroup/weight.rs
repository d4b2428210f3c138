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

/// The shares whose weight is `weight`, nearest the curve.
pub(super) fn to_shares(weight: u64) -> u64 {
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
    fn grows_and_returns() {
        for weight in 1..10_000 {
            assert!(to_shares(weight) <= to_shares(weight + 1));
            let there = from_shares(to_shares(weight));
            assert!(there.abs_diff(weight) <= 1, "{weight} became {there}");
        }
    }
}
