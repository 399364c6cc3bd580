//! The W3C `traceparent` as a type. Source: W3C, "Trace Context", section 3.2; 2025-11.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

/// A parsed `traceparent`: which trace, which span of it, and whether it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that a child hangs under.
    pub span_id: SpanId,
    /// Whether anybody records it.
    pub sampled: bool,
}

impl TraceParent {
    /// Parses "00-<32 hex>-<16 hex>-<2 hex>"; `None` for anything else, and for ids that are all zeros.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len());
        // A later version may append fields, version 00 may not, and ff is forbidden.
        if lengths != (2, 32, 16, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if ![version, trace, span, flags].into_iter().all(hexadecimal) {
            return None;
        }
        let trace_id = TraceId::from_hex(trace).ok()?;
        let span_id = SpanId::from_hex(span).ok()?;
        if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, span_id, sampled })
    }

    /// The start of a new trace.
    #[must_use]
    pub fn generate(sampled: bool) -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace_id: ids.new_trace_id(), span_id: ids.new_span_id(), sampled }
    }

    pub(crate) fn of(context: &SpanContext) -> Self {
        Self { trace_id: context.trace_id(), span_id: context.span_id(), sampled: context.is_sampled() }
    }

    pub(crate) fn remote(self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        SpanContext::new(self.trace_id, self.span_id, flags, true, TraceState::default())
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// A `traceparent` for an event that came without one, recorded with the given probability (0 to 1).
#[must_use]
pub fn new_traceparent(sample_ratio: f64) -> String {
    let start = TraceParent::generate(false);
    // The ids are random: 53 bits of the trace's are a uniform number in [0, 1).
    let bytes = start.trace_id.to_bytes();
    let mut low = [0u8; 8];
    low.copy_from_slice(&bytes[8..]);
    let uniform = (u64::from_be_bytes(low) >> 11) as f64 / (1u64 << 53) as f64;
    TraceParent { sampled: uniform < sample_ratio, ..start }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_parsed_prints_the_same() {
        assert_eq!(TraceParent::parse(SAMPLED).unwrap().to_string(), SAMPLED);
        assert!(!TraceParent::parse(&SAMPLED.replace("-01", "-00")).unwrap().sampled);
        // Version 01 may carry more; what version 00 defines is used.
        let later = format!("01{}-more", &SAMPLED[2..]);
        assert_eq!(TraceParent::parse(&later).unwrap().to_string(), SAMPLED);
    }

    #[test]
    fn a_malformed_header_is_no_parent() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let upper = SAMPLED.to_uppercase();
        let long = format!("{SAMPLED}-more");
        let forbidden = format!("ff{}", &SAMPLED[2..]);
        for text in ["", "00", "é", zeros, &upper, &long, &forbidden, &SAMPLED[1..]] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_ratio_decides_who_is_recorded() {
        let recorded = |ratio| (0..1000).filter(|_| new_traceparent(ratio).ends_with("-01")).count();
        assert_eq!((recorded(0.0), recorded(1.0)), (0, 1000));
        let half = recorded(0.5);
        assert!((350..650).contains(&half), "{half}");
    }
}
