//! The counters of all links at once. `/proc/net/dev` (proc(5)) is one file, made without the lock that changes of links
//! hold: asking for each link by netlink would wait while any pod's link is made or deleted.

use std::collections::HashMap;

use crate::error::NetworkError;
use crate::rtnetlink::link::Counters;

/// Of the network namespace of the process, whichever thread asks.
const FILE: &str = "/proc/self/net/dev";

/// The counters of the links of this process's network namespace, by name.
pub(super) fn read() -> Result<HashMap<String, Counters>, NetworkError> {
    let text = std::fs::read_to_string(FILE).map_err(NetworkError::state("read", FILE))?;
    Ok(parse(&text))
}

/// Two lines of headings, then `name: ` and 8 numbers each of what was received and sent.
fn parse(text: &str) -> HashMap<String, Counters> {
    text.lines().skip(2).filter_map(line).collect()
}

fn line(text: &str) -> Option<(String, Counters)> {
    let (name, numbers) = text.split_once(':')?;
    let numbers: Vec<u64> = numbers
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let field = |index: usize| numbers.get(index).copied();
    let counters = Counters {
        rx_bytes: field(0)?,
        rx_packets: field(1)?,
        rx_errors: field(2)?,
        rx_dropped: field(3)?,
        tx_bytes: field(8)?,
        tx_packets: field(9)?,
        tx_errors: field(10)?,
        tx_dropped: field(11)?,
    };
    Some((name.trim().to_owned(), counters))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_all_links() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    0    0    0     0          0         0        1       2    0    0    0     0       0          0
pw0123456789ab:1000 11 3 4 5 6 7 8 2000 22 9 10 0 0 0 0
broken: 1 2
";
        let links = parse(text);
        assert_eq!(links.len(), 2);
        let counters = Counters {
            rx_bytes: 1000,
            rx_packets: 11,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 2000,
            tx_packets: 22,
            tx_errors: 9,
            tx_dropped: 10,
        };
        assert_eq!(links["pw0123456789ab"], counters);
        assert_eq!(links["lo"].rx_packets, 2);
    }

    #[test]
    fn this_machine_has_links() {
        assert!(read().unwrap().contains_key("lo"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9: \\n]{0,300}") {
            parse(&text);
        }
    }
}
