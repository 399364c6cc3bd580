//! A connection with expressions: they are evaluated before the connection sees the event, by a lane and by `preview` alike. One
//! without expressions is not wrapped, and pays nothing for those that are.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tracklayer_expression::Budget;
use tracklayer_ids::Secret;

use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits, OAuthSettings, OrderNeed, Pauses, Usage};
use crate::document::{Kind, Mode};
use crate::maps::Maps;
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, RefusalCode, Skip};
use crate::overlay::{Filled, Overlay};
use crate::quality::{EventQuality, KeyCounts, KeySet};
use crate::request::HttpRequest;
use crate::trial::Trial;
use crate::verify::{Check, NoTest, PixelAnswer, Sample, TestAnswer};
use crate::warehouse::FileTarget;

/// A connection behind its expressions. Every method of the trait is passed on, those with a default as well.
pub struct Mapped {
    inner: Box<dyn Destination>,
    maps: Maps,
    /// Which one of all this is: what it makes of an event is no other's.
    number: u64,
}

static OPENED: AtomicU64 = AtomicU64::new(0);

impl Mapped {
    /// Puts expressions before a connection.
    #[must_use]
    pub fn new(inner: Box<dyn Destination>, maps: Maps) -> Self {
        Self { inner, maps, number: OPENED.fetch_add(1, Ordering::Relaxed) }
    }

    /// The event with the name that was chosen for it.
    fn named<'e>(&self, event: &'e Deliverable) -> Result<Cow<'e, Deliverable>, Skip> {
        Ok(match self.maps.choose_name(event, &mut Budget::default())? {
            None => Cow::Borrowed(event),
            Some(target) => {
                let mut overlay = Overlay::default();
                overlay.set_target(target);
                Cow::Owned(event.with_overlay(overlay))
            }
        })
    }

    /// The event with everything that expressions give, and what they could not.
    fn filled(&self, event: &Deliverable) -> Result<Filled, Skip> {
        let (mut overlay, mut notes, mut budget) = (Overlay::default(), Vec::new(), Budget::default());
        if let Some(target) = self.maps.choose_name(event, &mut budget)? {
            overlay.set_target(target);
        }
        self.maps.fill(event, &mut overlay, &mut notes, &mut budget);
        Ok(Filled { of: self.number, overlay: Arc::new(overlay), notes })
    }

    /// What the connection says of the event's order.
    fn of_order<T>(
        &self,
        event: &Deliverable,
        ask: impl FnOnce(&dyn Destination, &Deliverable) -> Option<T>,
    ) -> Option<T> {
        if !self.maps.give_order_id() {
            // What an event is called may decide whether it changes an order.
            return ask(&*self.inner, &*self.named(event).ok()?);
        }
        // It is asked of every event, and more than once: only what may go out is worth the work, and `build` takes it over.
        self.inner.wants(&*self.named(event).ok()?).ok()?;
        let filled = event.kept_of(self.number).map_or_else(|| self.filled(event), Ok).ok()?;
        let told = ask(&*self.inner, &event.with_shared_overlay(&filled.overlay));
        event.keep(filled);
        told
    }
}

impl Destination for Mapped {
    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn mode(&self) -> Mode {
        self.inner.mode()
    }

    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn pauses(&self) -> Pauses {
        self.inner.pauses()
    }

    fn max_event_age(&self, event: &Deliverable) -> Option<Duration> {
        self.inner.max_event_age(event)
    }

    fn consent_query(&self) -> ConsentQuery {
        self.inner.consent_query()
    }

    fn order_key(&self, event: &Deliverable) -> Option<String> {
        self.of_order(event, |inner, event| inner.order_key(event))
    }

    fn order_need(&self, event: &Deliverable) -> Option<OrderNeed> {
        self.of_order(event, |inner, event| inner.order_need(event))
    }

    fn borrows_from(&self, event: &Deliverable) -> Option<String> {
        // Fields may say whom an event is about.
        let filled = event.kept_of(self.number).map_or_else(|| self.filled(event), Ok).ok()?;
        let order = self.inner.borrows_from(&event.with_shared_overlay(&filled.overlay));
        event.keep(filled);
        order
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.inner.wants(&*self.named(event)?)?;
        self.maps.check_filter(event)
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        // Whoever asked `wants` first has been told already.
        let Filled { overlay, notes, .. } = event
            .kept_of(self.number)
            .map_or_else(|| self.filled(event), Ok)
            .map_err(|skip| Refusal::new(RefusalCode::EventNotMapped, skip.detail).at("event"))?;
        match self.inner.build(&event.with_shared_overlay(&overlay), now) {
            Ok(mut item) => {
                item.notes.extend(notes);
                Ok(item)
            }
            Err(mut refusal) => {
                refusal.notes.extend(notes);
                Err(refusal)
            }
        }
    }

    fn assemble(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> HttpRequest {
        self.inner.assemble(items, access_token)
    }

    fn oauth(&self) -> Option<&OAuthSettings> {
        self.inner.oauth()
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        self.inner.classify(answer, sent)
    }

    fn files(&self) -> Option<&FileTarget> {
        self.inner.files()
    }

    fn usage(&self, answer: &Answer) -> Option<Usage> {
        self.inner.usage(answer)
    }

    fn trial(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> Option<HttpRequest> {
        self.inner.trial(items, access_token)
    }

    fn read_trial(&self, answer: &Answer) -> Trial {
        self.inner.read_trial(answer)
    }

    fn status_request(&self, request_id: &str, access_token: &Secret<String>) -> Option<HttpRequest> {
        self.inner.status_request(request_id, access_token)
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        self.inner.checks(sample)
    }

    fn test_request(
        &self,
        items: &[&Item],
        access_token: Option<&Secret<String>>,
        test_code: Option<&str>,
    ) -> Result<HttpRequest, NoTest> {
        self.inner.test_request(items, access_token, test_code)
    }

    fn read_test(&self, answer: &Answer, sent: &[&Item]) -> TestAnswer {
        self.inner.read_test(answer, sent)
    }

    fn pixel_request(&self) -> Option<HttpRequest> {
        self.inner.pixel_request()
    }

    fn read_pixel(&self, answer: &Answer) -> PixelAnswer {
        self.inner.read_pixel(answer)
    }

    fn match_keys(&self) -> KeySet {
        self.inner.match_keys()
    }

    fn estimated_quality(&self, counts: &KeyCounts) -> Option<f64> {
        self.inner.estimated_quality(counts)
    }

    fn quality_request(&self) -> Option<HttpRequest> {
        self.inner.quality_request()
    }

    fn read_quality(&self, answer: &Answer) -> Result<Vec<EventQuality>, String> {
        self.inner.read_quality(answer)
    }
}
