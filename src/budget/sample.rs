//! Which requests a sample keeps: a matter of their ids and of nothing else, so that everybody who knows an id knows the answer.
//!
//! One request in N is kept: those whose hash is at most 2⁶⁴ / N. So a request that is kept at one in a hundred is also kept at one in ten, and services with
//! different samples keep requests of which one has all that the other has.
//!
//! The hash is a part of the wire contract (`docs/wire.md`), since other programs must be able to compute it: FNV-1a of 64 bits, which is a line of code in
//! any language, and the finalizer of MurmurHash3 over it. Without that, ids that differ in their last digits only have hashes whose high bits are alike, and a
//! sample of counted ids would take long runs of them.

/// Whether a sample of one request in `sample` keeps the request with this id: what [`Budget::sample`](crate::Budget::sample) decides by. 0 and 1 keep all.
///
/// For whatever else is to be kept for the same requests: a trace, a log, the events of a service that has no bus.
///
/// # Examples
///
/// ```
/// let kept = (0..10_000).filter(|number| jetring::keeps_request(format!("q-{number}"), 10)).count();
/// assert!((900..1_100).contains(&kept));
/// ```
#[must_use]
#[inline]
pub fn keeps_request(request_id: impl AsRef<[u8]>, sample: u32) -> bool {
    is_low(mix(fnv1a(request_id.as_ref())), sample)
}

/// The same by chance: by the next number of a sequence that goes on by equal steps.
#[inline]
pub(super) fn keeps_by_chance(step: u64, sample: u32) -> bool {
    is_low(mix(step), sample)
}

#[inline]
fn is_low(hash: u64, sample: u32) -> bool {
    hash <= u64::MAX / u64::from(sample.max(1))
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo; RFC 9923).
#[inline]
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The finalizer of MurmurHash3: each bit of the input changes half of those of the output.
#[inline]
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_of_the_contract() {
        // Of FNV-1a those that its authors publish; both are listed in docs/wire.md.
        for (id, fnv, mixed) in VECTORS {
            assert_eq!((fnv1a(id.as_bytes()), mix(fnv1a(id.as_bytes()))), (fnv, mixed), "{id:?}");
        }
        let page = include_str!("../../docs/wire.md");
        for (id, fnv, mixed) in VECTORS {
            let kept = [2, 10, 100].map(|sample| if keeps_request(id, sample) { "yes" } else { "no" });
            let line = format!(
                "| `\"{id}\"` | `{fnv:016x}` | `{mixed:016x}` | {} | {} | {} |",
                kept[0], kept[1], kept[2]
            );
            assert!(page.contains(&line), "docs/wire.md lacks {line}");
        }
    }

    const VECTORS: [(&str, u64, u64); 7] = [
        ("", 0xcbf2_9ce4_8422_2325, 0xefd0_1f60_ba99_2926),
        ("a", 0xaf63_dc4c_8601_ec8c, 0x82a2_a958_a9be_ce5b),
        ("foobar", 0x8594_4171_f739_67e8, 0x2c22_1949_22d1_672b),
        ("q-17", 0x3779_a806_9e82_e8d3, 0xe20b_7809_0a6a_12ce),
        ("q-98", 0x3794_b506_9e99_c6a2, 0x0087_70a1_7544_d18a),
        ("q-4", 0x6fd8_7919_522a_b4d5, 0x033d_57ac_00c7_da8a),
        ("0af7651916cd43dd8448eb211c80319c", 0xdad9_6dd8_0bf9_d545, 0xbc8e_95ca_3626_5c92),
    ];

    #[test]
    fn a_smaller_sample_keeps_what_a_larger_one_keeps_and_each_its_part() {
        let ids: Vec<_> = (0..100_000).map(|number| format!("request-{number:08}")).collect();
        let mut larger = 1;
        for sample in [2, 3, 10, 100, 1000] {
            let kept: Vec<_> = ids.iter().filter(|id| keeps_request(id, sample)).collect();
            assert!(
                kept.iter().all(|id| keeps_request(id, larger)),
                "one in {sample} is no part of one in {larger}"
            );
            let expected = ids.len() as f64 / f64::from(sample);
            let error = (kept.len() as f64 - expected).abs() / expected.sqrt();
            assert!(error < 4.0, "{} kept of one in {sample}, {error} standard deviations off", kept.len());
            larger = sample;
        }
        assert!(ids.iter().all(|id| keeps_request(id, 1) && keeps_request(id, 0)));
    }

    #[test]
    fn chance_keeps_its_part_also_of_steps() {
        let steps = (0..100_000u64).map(|number| number.wrapping_mul(crate::thread::STEP));
        let kept = steps.filter(|&step| keeps_by_chance(step, 100)).count();
        assert!((880..1120).contains(&kept), "{kept}");
    }
}
