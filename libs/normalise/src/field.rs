//! The kinds of field that have a form.

use std::str::FromStr;

/// What a value is. Several names of one platform may mean one field (`zp`, `zip_code`, `postal_code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// E-mail address.
    Email,
    /// Telephone number.
    Phone,
    /// Given name.
    FirstName,
    /// Family name.
    LastName,
    /// Gender: Meta takes `f` and `m` only.
    Gender,
    /// Date of birth.
    Birthday,
    /// Day of birth alone, 01 to 31 (Meta's SDKs).
    BirthDay,
    /// Month of birth alone, 01 to 12 (Meta's SDKs).
    BirthMonth,
    /// Year of birth alone (Meta's SDKs).
    BirthYear,
    /// Street and house number.
    Street,
    /// City.
    City,
    /// State, province or region.
    State,
    /// Postal code.
    PostalCode,
    /// Country.
    Country,
    /// The advertiser's own id of the person.
    ExternalId,
    /// IP address of the person.
    Ip,
    /// User agent of the person's browser.
    UserAgent,
    /// Advertising id of a device: IDFA, GAID, IDFV.
    MobileAdId,
    /// Language as BCP 47.
    Locale,
    /// Meta's click id as cookie text.
    Fbc,
    /// Meta's browser id as cookie text.
    Fbp,
    /// A click id that the platform itself made: gclid, gbraid, wbraid, ttclid.
    ClickId,
    /// Any other id that the platform itself made; passed as it is.
    OpaqueId,
    /// ISO 4217 code.
    Currency,
    /// Time of a conversion in the form of the Google Ads API.
    ConversionDateTime,
}

/// A field name that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no field with a form of its own")]
pub struct UnknownField(String);

impl Field {
    /// The field's name in metrics and previews.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Gender => "gender",
            Self::Birthday => "birthday",
            Self::BirthDay => "birth_day",
            Self::BirthMonth => "birth_month",
            Self::BirthYear => "birth_year",
            Self::Street => "street",
            Self::City => "city",
            Self::State => "state",
            Self::PostalCode => "postal_code",
            Self::Country => "country",
            Self::ExternalId => "external_id",
            Self::Ip => "ip",
            Self::UserAgent => "user_agent",
            Self::MobileAdId => "mobile_ad_id",
            Self::Locale => "locale",
            Self::Fbc => "fbc",
            Self::Fbp => "fbp",
            Self::ClickId => "click_id",
            Self::OpaqueId => "opaque_id",
            Self::Currency => "currency",
            Self::ConversionDateTime => "conversion_date_time",
        }
    }
}

impl FromStr for Field {
    type Err = UnknownField;

    /// Takes each platform's key and the usual names, in any case, with or without `_`, `-` and spaces.
    fn from_str(name: &str) -> Result<Self, UnknownField> {
        let plain: String =
            name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect();
        Ok(match plain.as_str() {
            "em" | "email" | "emailaddress" | "hashedemail" | "sha256emailaddress" => Self::Email,
            "ph" | "phone" | "phonenumber" | "hashedphonenumber" | "sha256phonenumber" => Self::Phone,
            "fn" | "firstname" | "givenname" | "hashedfirstname" | "sha256firstname" => Self::FirstName,
            "ln" | "lastname" | "familyname" | "surname" | "hashedlastname" | "sha256lastname" => {
                Self::LastName
            }
            "ge" | "gender" => Self::Gender,
            "db" | "birthday" | "dateofbirth" | "dob" | "birthdate" => Self::Birthday,
            "dobd" => Self::BirthDay,
            "dobm" => Self::BirthMonth,
            "doby" => Self::BirthYear,
            "street" | "streetaddress" | "addressline" | "hashedstreetaddress" | "sha256street" => {
                Self::Street
            }
            "ct" | "city" => Self::City,
            "st" | "state" | "region" | "province" | "administrativearea" => Self::State,
            "zp" | "zip" | "zipcode" | "postalcode" | "postcode" => Self::PostalCode,
            "country" | "countrycode" | "regioncode" => Self::Country,
            "externalid" | "userid" => Self::ExternalId,
            "ip" | "ipaddress" | "clientipaddress" | "useripaddress" => Self::Ip,
            "useragent" | "clientuseragent" => Self::UserAgent,
            "madid" | "mobiledeviceid" | "advertisingid" | "idfa" | "gaid" | "idfv" => Self::MobileAdId,
            "locale" => Self::Locale,
            "fbc" => Self::Fbc,
            "fbp" => Self::Fbp,
            "gclid" | "gbraid" | "wbraid" | "dclid" | "ttclid" => Self::ClickId,
            "ttp"
            | "clientid"
            | "appinstanceid"
            | "anonid"
            | "pageid"
            | "pagescopeduserid"
            | "ctwaclid"
            | "igaccountid"
            | "igsid"
            | "subscriptionid"
            | "leadid"
            | "fbloginid"
            | "whatsappbusinessaccountid" => Self::OpaqueId,
            "currency" | "currencycode" => Self::Currency,
            "conversiondatetime" | "datetime" => Self::ConversionDateTime,
            _ => return Err(UnknownField(name.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_keys_and_usual_names_mean_the_same_field() {
        for (names, field) in [
            (["em", "email", "Email"], Field::Email),
            (["zp", "zip_code", "postalCode"], Field::PostalCode),
            (["fn", "first_name", "firstName"], Field::FirstName),
            (["db", "birthday", "date_of_birth"], Field::Birthday),
            (["madid", "idfa", "gaid"], Field::MobileAdId),
        ] {
            for name in names {
                assert_eq!(name.parse(), Ok(field), "{name}");
            }
        }
        assert!("shoe_size".parse::<Field>().is_err());
    }
}
