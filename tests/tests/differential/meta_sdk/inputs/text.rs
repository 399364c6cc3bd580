//! Addresses, names, dates, ids.

use fastrand::Rng;

use super::super::case::{Key, Truth};
use super::{cased, decomposed, inside, pick};

/// Names of many scripts, with what stands in names.
const NAMES: [&str; 34] = [
    "Mary",
    "Valéry",
    "O'Brien",
    "O\u{2019}Neill",
    "Smith-Jones",
    "Smith Jones",
    "Mary Ann",
    "St. John",
    "van der Berg",
    "Müller",
    "Groß",
    "GROẞ",
    "İpek",
    "Işıl",
    "Σίσυφος",
    "ΟΔΥΣΣΕΎΣ",
    "Łukasz",
    "Дмитрий",
    "Ёлкин",
    "정",
    "東京",
    "山田 太郎",
    "محمد",
    "علی\u{200c}رضا",
    "נועה",
    "अनिल",
    "สมชาย",
    "Nguyễn Văn",
    "Ǆuro",
    "ﬁona",
    "John (Jack)",
    "D'Arcy, Jr.",
    "Jean\u{2013}Luc",
    "Anna\u{a0}Maria",
];

const GENDERS: [(&str, Option<&str>); 30] = [
    ("f", Some("f")),
    ("m", Some("m")),
    ("F", Some("f")),
    ("M", Some("m")),
    ("female", Some("f")),
    ("male", Some("m")),
    ("Female", Some("f")),
    ("MALE", Some("m")),
    ("woman", Some("f")),
    ("man", Some("m")),
    ("Frau", Some("f")),
    ("Herr", Some("m")),
    ("weiblich", Some("f")),
    ("männlich", Some("m")),
    ("femme", Some("f")),
    ("homme", Some("m")),
    ("Mrs.", Some("f")),
    ("Mr.", Some("m")),
    ("w", Some("f")),
    ("girl", Some("f")),
    ("boy", Some("m")),
    ("she", Some("f")),
    ("he", Some("m")),
    ("x", None),
    ("d", None),
    ("divers", None),
    ("non-binary", None),
    ("prefer not to say", None),
    ("1", None),
    ("u", None),
];

const COUNTRIES: [Option<&str>; 8] =
    [None, None, Some("US"), Some("US"), Some("DE"), Some("GB"), Some("FR"), Some("BR")];

pub fn country(rng: &mut Rng) -> Option<&'static str> {
    pick(rng, &COUNTRIES)
}

pub fn name(rng: &mut Rng) -> String {
    let name = pick(rng, &NAMES);
    let name = cased(rng, name);
    let name = decomposed(rng, &name);
    match rng.u8(0..12) {
        0 => {
            let what = pick(rng, &["\u{ad}", "\u{200d}", "\t", "\u{0}", "\u{fe0f}", "  "]);
            inside(rng, &name, what)
        }
        1 => format!("{name} {}", pick(rng, &["II", "3rd", "²", "\u{1f600}", "§", "Ⅷ", "٣"])),
        2 => format!("Dr. {name}"),
        _ => name,
    }
}

pub fn email(rng: &mut Rng) -> String {
    let local = pick(
        rng,
        &[
            "john_smith",
            "Jane.Doe",
            "j+shop",
            "müller",
            "o'brien",
            "user%x",
            "アンナ",
            "a",
            "\"q\"",
            "ſara",
            "İ",
        ],
    );
    let domain = pick(
        rng,
        &[
            "gmail.com",
            "Example.COM",
            "mail.example.co.uk",
            "münchen.example",
            "localhost",
            "example",
            "b..de",
            "b.de.",
            ".de",
            "xn--mnchen-3ya.example",
        ],
    );
    let local = cased(rng, local);
    let address = decomposed(rng, &format!("{local}@{domain}"));
    match rng.u8(0..14) {
        0 => inside(rng, &address, " "),
        1 => format!("{address},{address}"),
        2 => format!("Jane <{address}>"),
        3 => address.replace('@', "@@"),
        4 => address.replace('@', " at "),
        5 => {
            let what = pick(rng, &["\u{200d}", "\u{202c}", "\u{ad}", "\n", "\u{7f}"]);
            inside(rng, &address, what)
        }
        6 => format!("mailto:{address}"),
        7 => format!("@{domain}"),
        8 => format!("{local}@"),
        _ => address,
    }
}

pub fn gender(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let (word, letter) = pick(rng, &GENDERS);
    (cased(rng, word), None, letter.map_or(Truth::None, |letter| Truth::Is(letter.to_owned())))
}

/// A date, perhaps one that does not exist, in one of many ways of writing; the truth where it can be read in one way only.
pub fn birthday(rng: &mut Rng) -> (String, Option<&'static str>, Truth) {
    let year = match rng.u8(0..10) {
        0 => rng.i16(1800..1900),
        1 => rng.i16(2027..2100),
        _ => rng.i16(1900..2026),
    };
    let (month, day) = (rng.u8(1..14), rng.u8(1..32));
    let exists = month <= 12 && day <= days(year, month) && (1900..=2026).contains(&year);
    let truth = if exists { Truth::Is(format!("{year:04}{month:02}{day:02}")) } else { Truth::None };
    let told = |text: String| (text, None, truth.clone());
    let sep = pick(rng, &["-", "/", ".", " ", ", "]);
    match rng.u8(0..9) {
        0..2 => told(format!("{year:04}{month:02}{day:02}")),
        2 => told(format!("{year:04}{sep}{month:02}{sep}{day:02}")),
        3 => told(format!("{year:04}{sep}{month}{sep}{day}")),
        4 => told(format!("{year:04}-{month:02}-{day:02}T{:02}:00:00Z", rng.u8(0..24))),
        // Month first, as in the page's example; where the second part cannot be a day, or the first no month, it is the day.
        5 if month <= 12 => told(format!("{month}{sep}{day}{sep}{year}")),
        6 if (13..=31).contains(&day) => told(format!("{day:02}{sep}{month:02}{sep}{year}")),
        7 => (format!("{:02}{sep}{month:02}{sep}{day:02}", year % 100), None, Truth::None),
        8 => (
            pick(
                rng,
                &[
                    "Feb 16 1997",
                    "16. Februar 1997",
                    "1997",
                    "12",
                    "19970",
                    "199702161",
                    "1997-02",
                    "tomorrow",
                ],
            )
            .to_owned(),
            None,
            Truth::None,
        ),
        _ => (
            pick(rng, &["١٩٩٧٠٢١٦", "１９９７-０２-１６", "1997\u{2013}02\u{2013}16"]).to_owned(),
            None,
            Truth::Is("19970216".to_owned()),
        ),
    }
}

fn days(year: i16, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub fn date_part(rng: &mut Rng) -> String {
    let number = rng.i32(0..40);
    match rng.u8(0..9) {
        0..2 => format!("{number:02}"),
        2 => number.to_string(),
        3 => rng.i32(1850..2060).to_string(),
        4 => format!("+{number}"),
        5 => format!("{number:03}"),
        6 => pick(rng, &["٥", "１２", "१९९७"]).to_owned(),
        7 => pick(rng, &["1_0", "5.0", "5/6", "-5", "#5", "5th", "May", "97"]).to_owned(),
        _ => rng.i32(1900..2026).to_string(),
    }
}

pub fn external_id(rng: &mut Rng) -> String {
    match rng.u8(0..7) {
        0 => format!("Cust-{}", rng.u32(..)),
        1 => rng.u64(..).to_string(),
        2 => uuid(rng),
        3 => uuid(rng).to_uppercase(),
        4 => pick(rng, &["İd-1", "ÄÖÜ", "a b", "user@example.com", "ΟΔΥΣ", "e\u{301}"]).to_owned(),
        5 => pick(rng, &["guest", "anonymous", "Unknown", "none", "nil", "0", "00"]).to_owned(),
        _ => format!("shop:{}", rng.u16(..)),
    }
}

fn uuid(rng: &mut Rng) -> String {
    let n = rng.u128(..);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n as u32,
        (n >> 32) as u16,
        (n >> 48) as u16,
        (n >> 64) as u16,
        n >> 80
    )
}

pub fn mobile_ad_id(rng: &mut Rng) -> String {
    match rng.u8(0..5) {
        0..2 => uuid(rng),
        2 => uuid(rng).to_uppercase(),
        3 => uuid(rng).replace('-', ""),
        _ => "00000000-0000-0000-0000-000000000000".to_owned(),
    }
}

pub fn ip(rng: &mut Rng) -> String {
    let v4 = std::net::Ipv4Addr::from(rng.u32(..));
    let v6 = std::net::Ipv6Addr::from(rng.u128(..));
    match rng.u8(0..9) {
        0..2 => v4.to_string(),
        2 => v6.to_string(),
        3 => v6.to_string().to_uppercase(),
        4 => format!("{v4}:{}", rng.u16(1..)),
        5 => format!("[{v6}]:{}", rng.u16(1..)),
        6 => format!("::ffff:{v4}"),
        7 => format!("{v4}, 10.0.0.1"),
        _ => pick(
            rng,
            &[
                "10.1.2.3",
                "192.168.0.1",
                "127.0.0.1",
                "::1",
                "fe80::1",
                "fd00::1",
                "100.64.0.1",
                "localhost",
                "1.2.3",
                "999.1.1.1",
            ],
        )
        .to_owned(),
    }
}

pub fn cookie(rng: &mut Rng) -> String {
    let ms = 1_600_000_000_000 + u64::from(rng.u32(..));
    match rng.u8(0..8) {
        0..2 => format!("fb.1.{ms}.{}", rng.u32(..)),
        2 => format!("fb.2.{ms}.AbCdEf_{}", rng.u16(..)),
        3 => format!("fb.1.{ms}.IwAR{}.AQQCAQIB", rng.u16(..)),
        4 => format!("fb.1.{ms}"),
        5 => format!("FB.1.{ms}.x"),
        6 => format!("fb.1.{ms}.a.b"),
        _ => pick(rng, &["fb.1..x", "IwAR0", "fb.x.1.y", "fb.1.1.", "fb.1.1.a b"]).to_owned(),
    }
}

pub fn currency(rng: &mut Rng) -> String {
    let code = pick(
        rng,
        &[
            "USD",
            "eur",
            "Gbp",
            "JPY",
            "KWD",
            "CHF",
            "ABC",
            "XAU",
            "XTS",
            "XXX",
            "EURO",
            "US",
            "$",
            "US$",
            "U.S.D.",
            "€",
            "EUR 5",
            "usd,",
            "ＵＳＤ",
        ],
    );
    cased(rng, code)
}

/// Far more than anybody's data.
pub fn long(rng: &mut Rng, key: Key) -> String {
    let unit = match key {
        Key::Phone | Key::Birthday | Key::BirthDay | Key::BirthMonth | Key::BirthYear => "1234567890",
        Key::Email => "long@example.com.",
        _ => pick(rng, &["Aß-", "x y ", "정", "9"]),
    };
    unit.repeat(rng.usize(100..2_000))
}
