//! Writes results in the XML format of JUnit, which systems for continuous integration read. The schema is that of the
//! Maven plug-in Surefire (`surefire-test-report.xsd`). Each test file is a suite, and each function is a class.

use serde_json::Value;

use crate::app::{Difference, TestReport, TestResult};

/// Returns the results as an XML document.
pub(super) fn render(report: &TestReport) -> String {
    let all: Vec<&TestResult> = report.results.iter().collect();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml += &format!("<testsuites {}>\n", counts(&all, report.duration.as_secs_f64()));
    for suite in report.results.chunk_by(|a, b| a.file == b.file) {
        let results: Vec<&TestResult> = suite.iter().collect();
        let time = suite.iter().map(|result| result.duration.as_secs_f64()).sum();
        let name = suite.first().map(|first| first.file.display().to_string()).unwrap_or_default();
        xml += &format!("  <testsuite name=\"{}\" {}>\n", escape(&name), counts(&results, time));
        suite.iter().for_each(|result| xml += &case(result));
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

fn counts(results: &[&TestResult], seconds: f64) -> String {
    let failures = results.iter().filter(|result| !result.passed()).count();
    format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{seconds:.6}\"", results.len())
}

fn case(result: &TestResult) -> String {
    let (name, class) = (escape(&result.name), escape(&result.function));
    let time = result.duration.as_secs_f64();
    let mut xml = format!("    <testcase name=\"{name}\" classname=\"{class}\" time=\"{time:.6}\">\n");
    if !result.passed() {
        let lines: Vec<String> = result.differences.iter().map(line).collect();
        let first = lines.first().map(String::as_str).unwrap_or_default();
        let mut text = lines.join("\n");
        if let Some(message) = &result.message {
            text += &format!("\n{}: {message}", result.outcome);
        }
        xml += &format!("      <failure message=\"{}\">{}</failure>\n", escape(first), escape(&text));
    }
    if !result.logs.is_empty() {
        xml += &format!("      <system-out>{}</system-out>\n", escape(&result.logs.join("\n")));
    }
    xml + "    </testcase>\n"
}

fn line(difference: &Difference) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
    let Difference { at, expected, actual } = difference;
    format!("{at}: expected {}, actual {}", shown(expected), shown(actual))
}

/// Escapes text for XML 1.0, in an attribute and in an element. Characters that XML does not allow (section 2.2) become
/// U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped += "&#10;",
            '\t' => escaped += "&#9;",
            '\r' => escaped += "&#13;",
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn each_file_is_a_suite_and_each_failure_has_its_differences() {
        let result = |name: &str, differences| TestResult {
            file: "a&b.test.yaml".into(),
            name: name.to_owned(),
            function: "shop/charge".to_owned(),
            duration: Duration::from_millis(2),
            outcome: "reject",
            message: Some("no \u{1b} total".to_owned()),
            differences,
            is_updated: false,
            logs: vec!["info <ada>".to_owned()],
        };
        let difference = Difference { at: "outcome".to_owned(), expected: Some(json!("done")), actual: None };
        let results = vec![result("takes \"it\"", Vec::new()), result("fails", vec![difference])];
        let report = TestReport { results, updated: Vec::new(), recorded: None, duration: Duration::from_secs(1) };
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1" errors="0" skipped="0" time="1.000000">
  <testsuite name="a&amp;b.test.yaml" tests="2" failures="1" errors="0" skipped="0" time="0.004000">
    <testcase name="takes &quot;it&quot;" classname="shop/charge" time="0.002000">
      <system-out>info &lt;ada&gt;</system-out>
    </testcase>
    <testcase name="fails" classname="shop/charge" time="0.002000">
      <failure message="outcome: expected &quot;done&quot;, actual nothing">outcome: expected &quot;done&quot;, actual nothing&#10;reject: no � total</failure>
      <system-out>info &lt;ada&gt;</system-out>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(render(&report), expected);
    }
}
