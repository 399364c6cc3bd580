//! What the words of a key say about its value: `customerEmails` is "customer email", whatever its spelling.

/// Words that tell of a person wherever they stand in a key, one alone or two in a row.
const OF_PERSONS: [&str; 17] = [
    "mail",
    "surname",
    "street",
    "city",
    "zip",
    "postcode",
    "postal code",
    "mobile number",
    "tel",
    "birthday",
    "birthdate",
    "dob",
    "gender",
    "ip",
    "ssn",
    "passport",
    "token",
];

/// Whose name a name is, if not a product's.
const PEOPLE: [&str; 10] = [
    "customer",
    "user",
    "contact",
    "recipient",
    "buyer",
    "person",
    "billing",
    "shipping",
    "delivery",
    "cardholder",
];

/// Ids of things, which many visitors share or which are an order's.
const THINGS: [&str; 27] = [
    "order",
    "transaction",
    "checkout",
    "cart",
    "product",
    "variant",
    "sku",
    "item",
    "category",
    "collection",
    "brand",
    "list",
    "promotion",
    "coupon",
    "discount",
    "campaign",
    "creative",
    "content",
    "store",
    "shop",
    "location",
    "affiliation",
    "plan",
    "offer",
    "merchant",
    "event",
    "payment method",
];

/// The words of a key, lower case, without the s of a plural.
fn words(key: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in key.chars() {
        let is_start =
            letter.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit());
        if !letter.is_alphanumeric() || is_start {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words.into_iter().map(|word| singular(&word).to_owned()).collect()
}

fn singular(word: &str) -> &str {
    if word.ends_with("sses") {
        return &word[..word.len() - 2];
    }
    match word.strip_suffix('s') {
        Some(one) if one.len() > 1 && !one.ends_with('s') => one,
        _ => word,
    }
}

/// Whether one of the words, or two in a row, is in the list.
fn any(words: &[String], of: &[&str]) -> bool {
    words.iter().any(|word| of.contains(&word.as_str()))
        || words.windows(2).any(|two| of.contains(&two.join(" ").as_str()))
}

/// Whether a key's words tell of a person.
pub(crate) fn tells_of_a_person(key: &str) -> bool {
    let words = words(key);
    let is_persons_name = match words.split_last() {
        Some((last, [whose, others @ ..])) => {
            let is_part = |word: &String| ["full", "first", "last"].contains(&word.as_str());
            last == "name" && PEOPLE.contains(&whose.as_str()) && others.iter().all(is_part)
        }
        _ => false,
    };
    is_persons_name || any(&words, &OF_PERSONS)
}

/// Whether a key's words name an id other than a thing's.
pub(crate) fn identifies(key: &str, ids: &[&str]) -> bool {
    let words = words(key);
    if any(&words, ids) {
        return true;
    }
    match words.split_last() {
        Some((last, of)) if matches!(last.as_str(), "id" | "uuid" | "guid") && !of.is_empty() => {
            let thing = &of[of.len().saturating_sub(2)..];
            !THINGS.contains(&thing.join(" ").as_str())
                && !thing.last().is_some_and(|thing| THINGS.contains(&thing.as_str()))
        }
        _ => false,
    }
}

/// Whether a key's words name an address on the web.
pub(crate) fn is_web_address(key: &str) -> bool {
    let words = words(key);
    any(&words, &["url", "uri", "href", "referrer", "referer", "query string"])
        || words.iter().any(|word| word.len() > 4 && word.ends_with("url"))
}

/// Whether a key's words name the place where somebody lives, and nothing else.
pub(crate) fn is_of_home(key: &str, places: &[&str]) -> bool {
    let words = words(key);
    let folded = words.concat();
    let is_place = places.iter().any(|place| folded == *place) || any(&words, places);
    (is_place || any(&words, &["address", "postal code"]))
        && !any(&words, &["email", "mail", "phone", "tel", "ip", "mac", "street"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_words() {
        for key in ["customer_emails", "customerEmails", "Customer-Emails", "customer emails"] {
            assert_eq!(words(key), ["customer", "email"], "{key}");
        }
        assert_eq!(words("shipping_addresses"), ["shipping", "address"]);
        assert_eq!(words("address"), ["address"]);
        assert_eq!(words("pageURL"), ["page", "url"]);
        assert_eq!(words("_"), [""; 0]);
    }
}
