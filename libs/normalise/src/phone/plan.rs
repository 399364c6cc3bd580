//! Numbering plans of the countries: Google's libphonenumber data as the `phonenumber` crate carries them.
//!
//! Only the data are taken from that crate: it would parse numbers itself, but keeps its compiled patterns in one
//! cache of a hundred behind one lock. Here each plan's patterns are compiled once, when the first number of that
//! country comes, and read without a lock.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use phonenumber::Metadata;
use phonenumber::metadata::DATABASE;
use regex::{Regex, RegexBuilder};

use crate::place;

/// Longest country code. Source: ITU-T E.164; 2010-11.
const LONGEST_CODE: usize = 3;

/// How numbers of one country are built.
pub(super) struct Plan {
    data: &'static Metadata,
    code: String,
    /// What every national number looks like, whole.
    number: Option<Regex>,
    /// What is dialled before a national number: trunk prefix, perhaps a carrier's code.
    trunk: Option<Regex>,
    /// What is dialled before a number abroad.
    abroad: Option<Regex>,
    /// Fixed lines and mobiles: stricter than `number`, bigger, and rarely asked.
    line: OnceLock<Option<Regex>>,
}

/// The plan of a country given as alpha-2 in upper case.
pub(super) fn of_country(alpha2: &str) -> Option<&'static Plan> {
    let slot = PLANS.by_country.get(place::slot_of(alpha2)?)?.as_ref()?;
    Some(slot.plan.get_or_init(|| Plan::compile(slot.data)))
}

/// The plan behind a country code; where countries share one, that of the biggest.
pub(super) fn of_code(code: &str) -> Option<&'static Plan> {
    let slot = PLANS.by_code.get(code)?;
    Some(slot.plan.get_or_init(|| Plan::compile(slot.data)))
}

/// The country code with which the digits of an international number begin.
pub(super) fn country_code(digits: &str) -> Option<&str> {
    let longest = LONGEST_CODE.min(digits.len());
    (1..=longest).map(|length| &digits[..length]).find(|code| PLANS.by_code.contains_key(*code))
}

/// Tells whether a number with its country code fits that country's plan.
pub(super) fn is_possible(number: &str) -> bool {
    country_code(number)
        .and_then(|code| of_code(code).map(|plan| plan.matches(&number[code.len()..])))
        .unwrap_or(false)
}

impl Plan {
    /// The country code.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// Tells whether these digits are a national number of the plan, whole and without prefix.
    pub(super) fn matches(&self, national: &str) -> bool {
        let lengths = self.data.descriptors().general().possible_length();
        let is_of_length =
            lengths.is_empty() || lengths.iter().any(|length| usize::from(*length) == national.len());
        is_of_length && self.number.as_ref().is_some_and(|number| number.is_match(national))
    }

    /// The digits without the trunk prefix, or rewritten as the plan says (Argentina's 15); `None` if there is none.
    pub(super) fn without_trunk_prefix(&self, digits: &str) -> Option<String> {
        let trunk = self.trunk.as_ref()?;
        // Most numbers have none, which is found out for a tenth of what the groups cost.
        if !trunk.is_match(digits) {
            return None;
        }
        let found = trunk.captures(digits)?;
        let rest = &digits[found.get(0)?.end()..];
        let last_group = found.len().checked_sub(1).filter(|last| *last > 0).and_then(|last| found.get(last));
        let stripped = match self.data.national_prefix_transform_rule() {
            Some(rule) if last_group.is_some() => {
                let mut rewritten = String::new();
                found.expand(&braced(rule), &mut rewritten);
                rewritten.push_str(rest);
                rewritten
            }
            _ => rest.to_owned(),
        };
        (!stripped.is_empty() && stripped != digits).then_some(stripped)
    }

    /// How many leading digits are the prefix for dialling abroad.
    pub(super) fn dialled_abroad(&self, digits: &str) -> Option<usize> {
        let end = self.abroad.as_ref()?.find(digits)?.end();
        (!digits[end..].starts_with('0')).then_some(end)
    }

    /// The national number behind the country code, if the digits begin with that code although no plus says so.
    ///
    /// As libphonenumber decides (2026-07): the digits fit no national number and what follows the code does. Further
    /// than that: where a trunk prefix is written before national numbers and these digits have none, and a fixed
    /// line or mobile follows the code, it is the code too. German 49 171 … could be an area code of East Frisia,
    /// but nobody leaves out its zero.
    pub(super) fn already_international(&self, digits: &str) -> Option<String> {
        let rest = digits.strip_prefix(self.code.as_str())?;
        let significant = match self.without_trunk_prefix(rest) {
            Some(stripped) if !self.matches(rest) && self.matches(&stripped) => stripped,
            _ => rest.to_owned(),
        };
        let is_number = if self.matches(digits) {
            self.writes_trunk_prefix() && self.is_line(&significant)
        } else {
            self.matches(&significant)
                && self.without_trunk_prefix(digits).is_none_or(|home| !self.matches(&home))
        };
        is_number.then_some(significant)
    }

    fn writes_trunk_prefix(&self) -> bool {
        self.data.national_prefix().is_some_and(|prefix| prefix.starts_with('0'))
    }

    fn is_line(&self, national: &str) -> bool {
        let line = self.line.get_or_init(|| {
            let descriptors = self.data.descriptors();
            let of = |kind| descriptors.get(kind).map(|descriptor| descriptor.national_number().as_str());
            let fixed = of(phonenumber::Type::FixedLine)?;
            let mobile = of(phonenumber::Type::Mobile)?;
            pattern(&format!("^(?:{fixed}|{mobile})$"))
        });
        line.as_ref().is_some_and(|line| line.is_match(national))
    }

    fn compile(data: &'static Metadata) -> Self {
        let from_start = |source: &str| pattern(&format!("^(?:{source})"));
        let trunk = match (data.national_prefix_for_parsing(), data.national_prefix()) {
            (Some(parsing), _) => from_start(parsing.as_str()),
            (None, Some(prefix)) => from_start(prefix),
            (None, None) => None,
        };
        Self {
            data,
            code: data.country_code().to_string(),
            number: pattern(&format!("^(?:{})$", data.descriptors().general().national_number().as_str())),
            trunk,
            abroad: data.international_prefix().and_then(|abroad| from_start(abroad.as_str())),
            line: OnceLock::new(),
        }
    }
}

/// A pattern of the data, which may hold white space. A pattern that does not compile matches nothing: a test
/// compiles them all.
fn pattern(source: &str) -> Option<Regex> {
    RegexBuilder::new(source).ignore_whitespace(true).unicode(false).build().ok()
}

/// The data write `$1` before digits ("9$1"), where the regex crate would read a longer name.
fn braced(rule: &str) -> String {
    let mut out = String::with_capacity(rule.len() + 4);
    let mut chars = rule.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '$'
            && let Some(group) = chars.next_if(char::is_ascii_digit)
        {
            out.push('{');
            out.push(group);
            out.push('}');
        }
    }
    out
}

struct Slot {
    data: &'static Metadata,
    plan: OnceLock<Plan>,
}

struct Plans {
    /// By [`place::slot_of`].
    by_country: Vec<Option<Slot>>,
    by_code: HashMap<String, Slot>,
}

static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    let slot = |data| Slot { data, plan: OnceLock::new() };
    let mut plans = Plans { by_country: Vec::new(), by_code: HashMap::new() };
    plans.by_country.resize_with(place::SLOTS, || None);
    let database: &'static phonenumber::metadata::Database = &DATABASE;
    for data in database.iter() {
        // What is no country ("001", numbers of no country) is found by its code alone.
        if let Some(at) = place::slot_of(data.id()) {
            plans.by_country[at] = Some(slot(data));
        }
        let code = data.country_code();
        let biggest = database.by_code(&code).and_then(|sharing| sharing.into_iter().next()).unwrap_or(data);
        plans.by_code.entry(code.to_string()).or_insert_with(|| slot(biggest));
    }
    plans
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_every_plan_compiles() {
        let database: &'static phonenumber::metadata::Database = &DATABASE;
        for data in database.iter() {
            let plan = Plan::compile(data);
            assert!(plan.number.is_some(), "{}", data.id());
            assert_eq!(plan.abroad.is_some(), data.international_prefix().is_some(), "{}", data.id());
            let has_trunk = data.national_prefix().is_some() || data.national_prefix_for_parsing().is_some();
            assert_eq!(plan.trunk.is_some(), has_trunk, "{}", data.id());
        }
    }

    #[test]
    fn the_example_of_every_country_is_its_own_international_form() {
        let database: &'static phonenumber::metadata::Database = &DATABASE;
        let mut checked = 0;
        for data in database.iter() {
            let descriptors = data.descriptors();
            for kind in [phonenumber::Type::FixedLine, phonenumber::Type::Mobile] {
                let Some(example) = descriptors.get(kind).and_then(|descriptor| descriptor.example()) else {
                    continue;
                };
                let number = format!("{}{example}", data.country_code());
                let text = format!("+{number}");
                let hints = crate::Hints::default();
                let form = super::super::form(crate::Platform::Meta, &text, &hints);
                assert_eq!(form, Ok(number), "{} {kind:?}", data.id());
                checked += 1;
            }
        }
        assert!(checked > 400, "{checked}");
    }

    #[test]
    fn shared_country_codes_have_the_plan_of_the_biggest() {
        for (code, country) in
            [("1", "US"), ("7", "RU"), ("44", "GB"), ("39", "IT"), ("61", "AU"), ("47", "NO")]
        {
            assert_eq!(of_code(code).map(|plan| plan.data.id()), Some(country));
        }
        assert_eq!(country_code("18005550100"), Some("1"));
        assert_eq!(country_code("971501234567"), Some("971"));
        assert_eq!(country_code("2101234567"), None);
    }
}
