//! Checks the names of time zones, and suggests a zone for an abbreviation or an offset.

use evoke_manifest::parser::{ValueError, excerpt, join_with_or, nearest};

/// Abbreviations that are not zones of the IANA database, each with the zones that use it.
const ABBREVIATIONS: &[(&str, &[&str])] = &[
    ("ACDT", &["Australia/Adelaide"]),
    ("ACST", &["Australia/Adelaide", "Australia/Darwin"]),
    ("ADT", &["America/Halifax"]),
    ("AEDT", &["Australia/Sydney"]),
    ("AEST", &["Australia/Sydney", "Australia/Brisbane"]),
    ("AKDT", &["America/Anchorage"]),
    ("AKST", &["America/Anchorage"]),
    ("ART", &["America/Argentina/Buenos_Aires"]),
    ("AST", &["America/Halifax", "America/Puerto_Rico"]),
    ("AWST", &["Australia/Perth"]),
    ("BRT", &["America/Sao_Paulo"]),
    ("BST", &["Europe/London"]),
    ("CAT", &["Africa/Maputo"]),
    ("CDT", &["America/Chicago"]),
    ("CEST", &["Europe/Berlin"]),
    ("CST", &["America/Chicago", "Asia/Shanghai"]),
    ("CT", &["America/Chicago"]),
    ("EAT", &["Africa/Nairobi"]),
    ("EDT", &["America/New_York"]),
    ("EEST", &["Europe/Athens"]),
    ("ET", &["America/New_York"]),
    ("GST", &["Asia/Dubai"]),
    ("HDT", &["America/Adak"]),
    ("HKT", &["Asia/Hong_Kong"]),
    ("ICT", &["Asia/Bangkok"]),
    ("IST", &["Asia/Kolkata", "Europe/Dublin", "Asia/Jerusalem"]),
    ("JST", &["Asia/Tokyo"]),
    ("KST", &["Asia/Seoul"]),
    ("MDT", &["America/Denver"]),
    ("MESZ", &["Europe/Berlin"]),
    ("MEZ", &["Europe/Berlin"]),
    ("MSK", &["Europe/Moscow"]),
    ("MT", &["America/Denver"]),
    ("NDT", &["America/St_Johns"]),
    ("NST", &["America/St_Johns"]),
    ("NZDT", &["Pacific/Auckland"]),
    ("NZST", &["Pacific/Auckland"]),
    ("PDT", &["America/Los_Angeles"]),
    ("PKT", &["Asia/Karachi"]),
    ("PST", &["America/Los_Angeles"]),
    ("PT", &["America/Los_Angeles"]),
    ("SAST", &["Africa/Johannesburg"]),
    ("SGT", &["Asia/Singapore"]),
    ("WAT", &["Africa/Lagos"]),
    ("WEST", &["Europe/Lisbon"]),
    ("WIB", &["Asia/Jakarta"]),
];

/// Abbreviations that are zones without daylight saving time in the IANA database. After each, there are two zones that
/// the user may mean instead: a place whose clocks show the abbreviation only in winter, and a place with the same
/// offset all year.
const FIXED: [(&str, &str, &str); 2] =
    [("EST", "America/New_York", "America/Panama"), ("MST", "America/Denver", "America/Phoenix")];

/// Zones that have the same offset all year, by their offset in minutes.
const WITHOUT_DAYLIGHT_SAVING: &[(i32, &str)] = &[
    (-660, "Pacific/Pago_Pago"),
    (-600, "Pacific/Honolulu"),
    (-570, "Pacific/Marquesas"),
    (-540, "Pacific/Gambier"),
    (-480, "Pacific/Pitcairn"),
    (-420, "America/Phoenix"),
    (-360, "America/Costa_Rica"),
    (-300, "America/Panama"),
    (-240, "America/Puerto_Rico"),
    (-180, "America/Cayenne"),
    (-120, "America/Noronha"),
    (-60, "Atlantic/Cape_Verde"),
    (0, "UTC"),
    (60, "Africa/Lagos"),
    (120, "Africa/Johannesburg"),
    (180, "Africa/Nairobi"),
    (210, "Asia/Tehran"),
    (240, "Asia/Dubai"),
    (270, "Asia/Kabul"),
    (300, "Asia/Karachi"),
    (330, "Asia/Kolkata"),
    (345, "Asia/Kathmandu"),
    (360, "Asia/Dhaka"),
    (390, "Asia/Yangon"),
    (420, "Asia/Bangkok"),
    (480, "Asia/Singapore"),
    (525, "Australia/Eucla"),
    (540, "Asia/Tokyo"),
    (570, "Australia/Darwin"),
    (600, "Australia/Brisbane"),
    (660, "Pacific/Noumea"),
    (720, "Pacific/Tarawa"),
    (780, "Pacific/Tongatapu"),
    (840, "Pacific/Kiritimati"),
];

/// Returns the name if it is a zone of the IANA database.
pub(super) fn parse(text: &str) -> Result<String, ValueError> {
    if jiff::tz::TimeZone::get(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(format!("unknown time zone `{}`", excerpt(text)), suggestion(text)))
}

fn suggestion(text: &str) -> String {
    if let Some((_, zones)) = ABBREVIATIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return format!("write the name of a time zone: {}", join_with_or(zones.iter().copied()));
    }
    if let Some(minutes) = offset_minutes(text) {
        return match without_daylight_saving(minutes) {
            Some(zone) => {
                format!(
                    "write the name of a time zone; `{zone}` is {} all year, without daylight saving time",
                    utc(minutes)
                )
            }
            None => "write the name of a time zone, such as `Europe/Berlin`".to_owned(),
        };
    }
    let database = jiff::tz::db();
    let known: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
    let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
    // Names of at most four letters are not suggested: for such short names, the most similar one is rarely right.
    let similar = nearest(text, known.iter().map(String::as_str)).filter(|similar| similar.len() > 4);
    match similar.or(known.iter().find(city).map(String::as_str)) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if known.is_empty() => "this machine has no time zone database; install the package `tzdata`".to_owned(),
        None => "write a name from the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    }
}

/// Returns the message and the help text of a warning if the name is valid but easily misunderstood.
pub(super) fn advice(text: &str) -> Option<(String, String)> {
    if let Some((name, place, fixed)) = FIXED.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text)) {
        let message = format!("the time zone `{name}` has no daylight saving time: its offset is the same all year");
        let help =
            format!("write `{place}` for the time that clocks show there, or `{fixed}` for the same offset all year");
        return Some((message, help));
    }
    let (area, name) = text.split_once('/')?;
    if !area.eq_ignore_ascii_case("etc") {
        return None;
    }
    let inverted = offset_minutes(name).filter(|minutes| *minutes != 0)?;
    let zone = |minutes: i32| {
        let zone = without_daylight_saving(minutes);
        zone.map_or_else(String::new, |zone| format!("; for {} all year, write `{zone}`", utc(minutes)))
    };
    let message =
        format!("the time zone `{}` is {}: names in `Etc/` have the opposite sign", excerpt(text), utc(-inverted));
    Some((message, format!("write the zone of a place such as `Europe/Berlin`{}{}", zone(-inverted), zone(inverted))))
}

fn without_daylight_saving(minutes: i32) -> Option<&'static str> {
    WITHOUT_DAYLIGHT_SAVING.iter().find(|(offset, _)| *offset == minutes).map(|(_, zone)| *zone)
}

/// Formats an offset, such as `UTC+5` or `UTC+5:30`.
fn utc(minutes: i32) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
    if rest == 0 { format!("UTC{sign}{hours}") } else { format!("UTC{sign}{hours}:{rest:02}") }
}

/// Parses an offset such as `UTC+2`, `GMT-05:30`, `+0200` or `Z`.
fn offset_minutes(text: &str) -> Option<i32> {
    let text = text.to_ascii_uppercase();
    if text == "Z" {
        return Some(0);
    }
    let offset = text.strip_prefix("UTC").or(text.strip_prefix("GMT")).unwrap_or(&text).trim();
    let (sign, digits) = match offset.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, offset.strip_prefix('+')?),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() > 2 => digits.split_at_checked(digits.len() - 2)?,
        None => (digits, "0"),
    };
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() <= 2).map(i32::from);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the offsets of a zone in January and in July, in minutes.
    fn offsets(zone: &str) -> [i32; 2] {
        let zone = jiff::tz::TimeZone::get(zone).unwrap();
        ["2026-01-15T12:00:00Z", "2026-07-15T12:00:00Z"]
            .map(|at| zone.to_offset(at.parse::<jiff::Timestamp>().unwrap()).seconds() / 60)
    }

    #[test]
    fn every_suggested_zone_exists_and_has_no_warning() {
        for (name, zones) in ABBREVIATIONS {
            assert!(parse(name).is_err(), "{name} must not be a zone in the IANA database");
            for zone in *zones {
                assert_eq!(parse(zone).as_deref(), Ok(*zone));
                assert_eq!(advice(zone), None);
            }
        }
        for (minutes, zone) in WITHOUT_DAYLIGHT_SAVING {
            assert_eq!(offsets(zone), [*minutes; 2], "{zone}");
        }
        for (name, place, fixed) in FIXED {
            assert_eq!(offsets(name), offsets(fixed));
            let [winter, summer] = offsets(place);
            assert_eq!((winter, summer), (offsets(name)[0], winter + 60), "{name}");
        }
    }

    #[test]
    fn an_unknown_zone_gets_the_right_suggestion() {
        for (text, help) in [
            ("PST", "`America/Los_Angeles`"),
            ("pst", "`America/Los_Angeles`"),
            ("CEST", "`Europe/Berlin`"),
            ("BST", "`Europe/London`"),
            ("IST", "`Asia/Kolkata`, `Europe/Dublin` or `Asia/Jerusalem`"),
            ("UTC+2", "`Africa/Johannesburg` is UTC+2 all year"),
            ("GMT-5", "`America/Panama` is UTC-5 all year"),
            ("+05:30", "`Asia/Kolkata` is UTC+5:30 all year"),
            ("-0300", "`America/Cayenne` is UTC-3 all year"),
            ("UTC+13:45", "`Europe/Berlin`"),
            ("Z", "`UTC` is UTC+0 all year"),
            ("Lisbon", "`Europe/Lisbon`"),
            ("Europe/Berlyn", "`Europe/Berlin`"),
            ("XST", "IANA database"),
            ("local", "IANA database"),
        ] {
            let found = parse(text).unwrap_err().help;
            assert!(found.contains(help), "{text}: {found}");
        }
    }

    #[test]
    fn names_that_mislead_get_a_warning_and_others_do_not() {
        for (text, message, help) in [
            ("EST", "`EST` has no daylight saving time", "write `America/New_York`"),
            ("mst", "`MST` has no daylight saving time", "write `America/Denver`"),
            (
                "Etc/GMT+5",
                "is UTC-5",
                "for UTC-5 all year, write `America/Panama`; for UTC+5 all year, write `Asia/Karachi`",
            ),
            ("etc/gmt-14", "is UTC+14", "for UTC+14 all year, write `Pacific/Kiritimati`"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
            let (found, suggested) = advice(text).unwrap();
            assert!(found.contains(message) && suggested.contains(help), "{text}: {found}; {suggested}");
        }
        for text in [
            "UTC",
            "Etc/UTC",
            "Etc/GMT",
            "GMT",
            "Etc/GMT+0",
            "Europe/Berlin",
            "CET",
            "HST",
            "EST5EDT",
            "PST8PDT",
            "Zulu",
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
            assert_eq!(advice(text), None, "{text}");
        }
    }
}
