//! The published examples of Amazon EventBridge and Event Ruler, with additional cases for each operator.

use serde_json::{Value, json};

use super::{assert_list_matches, matches};

fn state_change() -> Value {
    json!({
        "version": "0",
        "id": "ddddd4-aaaa-7777-4444-345dd43cc333",
        "detail-type": "EC2 Instance State-change Notification",
        "source": "aws.ec2",
        "account": "012345679012",
        "time": "2017-10-02T16:24:49Z",
        "region": "us-east-1",
        "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000"],
        "detail": {
            "c-count": 5,
            "d-count": 3,
            "x-limit": 301.8,
            "source-ip": "10.0.0.33",
            "instance-id": "i-000000aaaaaa00000",
            "state": "running"
        }
    })
}

#[test]
fn published_patterns_match_the_state_change_event() {
    for pattern in [
        json!({
            "detail-type": ["EC2 Instance State-change Notification"],
            "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000"],
            "detail": { "state": ["initializing", "running"] }
        }),
        json!({ "time": [{ "prefix": "2017-10-02" }] }),
        json!({ "source": [{ "suffix": "ec2" }] }),
        json!({ "source": [{ "equals-ignore-case": "AWS.EC2" }] }),
        json!({ "source": [{ "wildcard": "aws*2" }] }),
        json!({ "detail": { "state": [{ "anything-but": "initializing" }] } }),
        json!({ "detail": { "x-limit": [{ "anything-but": 123 }] } }),
        json!({ "detail": { "state": [{ "anything-but": ["stopped", "overloaded"] }] } }),
        json!({ "detail": { "x-limit": [{ "anything-but": [100, 200, 300] }] } }),
        json!({ "detail": { "state": [{ "anything-but": { "prefix": "init" } }] } }),
        json!({ "detail": {
            "c-count": [{ "numeric": [">", 0, "<=", 5] }],
            "d-count": [{ "numeric": ["<", 10] }],
            "x-limit": [{ "numeric": ["=", 3.018e2] }]
        } }),
        json!({ "detail": { "source-ip": [{ "cidr": "10.0.0.0/24" }] } }),
        json!({ "detail": { "c-count": [{ "exists": true }] } }),
        json!({ "detail": { "e-count": [{ "exists": false }] } }),
        json!({
            "time": [{ "prefix": "2017-10-02" }],
            "detail": {
                "state": [{ "anything-but": "initializing" }],
                "c-count": [{ "numeric": [">", 0, "<=", 5] }],
                "d-count": [{ "numeric": ["<", 10] }],
                "x-limit": [{ "anything-but": [100, 200, 300] }],
                "source-ip": [{ "cidr": "10.0.0.0/8" }]
            }
        }),
    ] {
        assert!(matches(&pattern, &state_change()), "{pattern}");
    }
}

#[test]
fn patterns_that_differ_in_one_place_do_not_match_the_state_change_event() {
    for pattern in [
        json!({ "detail": { "state": ["initializing"] } }),
        json!({ "source": [{ "suffix": "s3" }] }),
        json!({ "detail": { "c-count": [{ "exists": false }] } }),
        json!({ "detail": { "e-count": [{ "exists": true }] } }),
        json!({ "detail": { "e-count": [{ "anything-but": 1 }] } }),
        json!({ "detail": [{ "exists": true }] }),
        json!({ "detail": { "state": ["running"], "c-count": [6] } }),
    ] {
        assert!(!matches(&pattern, &state_change()), "{pattern}");
    }
}

#[test]
fn exact_values_match_only_values_of_the_same_type() {
    assert_list_matches(
        &json!(["a", 1, true, null]),
        &[json!("a"), json!(1), json!(1.0), json!(true), json!(null)],
        &[
            json!("A"),
            json!("1"),
            json!(2),
            json!(false),
            json!("true"),
            json!("null"),
            json!({}),
            json!([]),
            json!(""),
        ],
    );
    assert_list_matches(&json!([""]), &[json!("")], &[json!(null), json!(" "), json!([])]);
}

#[test]
fn numbers_match_by_value() {
    assert_list_matches(&json!([300]), &[json!(300), json!(300.0), json!(3.0e2)], &[json!("300"), json!(300.000001)]);
    assert_list_matches(
        &json!([9_007_199_254_740_993u64]),
        &[json!(9_007_199_254_740_993u64)],
        &[json!(9_007_199_254_740_992u64)],
    );
    assert_list_matches(
        &json!([{ "numeric": [">", 0, "<=", 5] }]),
        &[json!(5), json!(0.001), json!(5.0)],
        &[json!(0), json!(-1), json!(5.000001), json!("3"), json!(null), json!(true)],
    );
    assert_list_matches(&json!([{ "numeric": ["<", 10] }]), &[json!(-1e300), json!(9.99)], &[json!(10), json!(1e300)]);
    assert_list_matches(&json!([{ "numeric": [">=", 10] }]), &[json!(10), json!(u64::MAX)], &[json!(9)]);
    assert_list_matches(&json!([{ "numeric": ["=", 3.018e2] }]), &[json!(301.8)], &[json!(301.7)]);
    assert_list_matches(&json!([{ "numeric": [">=", 5, "<=", 5] }]), &[json!(5)], &[json!(4), json!(6)]);
    assert_list_matches(&json!([{ "numeric": ["<", 5, ">", 1] }]), &[json!(2)], &[json!(1), json!(5)]);
}

#[test]
fn prefix_and_suffix_match_the_start_and_end_of_strings() {
    let region = [json!("us-"), json!("us-east-1")];
    assert_list_matches(
        &json!([{ "prefix": "us-" }]),
        &region,
        &[json!("us"), json!("US-east-1"), json!("eu-us-"), json!(5), json!(null)],
    );
    assert_list_matches(
        &json!([{ "suffix": ".png" }]),
        &[json!(".png"), json!("a.png")],
        &[json!("png"), json!("a.PNG"), json!("a.png ")],
    );
    let service = [json!("EventBridge"), json!("eventb"), json!("EVENTBUS")];
    assert_list_matches(
        &json!([{ "prefix": { "equals-ignore-case": "EventB" } }]),
        &service,
        &[json!("event"), json!("my eventb")],
    );
    let service = [json!("EventBridge"), json!("TBRIDGE"), json!("tBridge")];
    assert_list_matches(
        &json!([{ "suffix": { "equals-ignore-case": "tBridge" } }]),
        &service,
        &[json!("bridge"), json!("tbridges")],
    );
    assert_list_matches(&json!([{ "prefix": "" }]), &[json!(""), json!("a")], &[json!(1), json!(null)]);
    assert_list_matches(
        &json!([{ "prefix": "grün" }, { "suffix": "ä" }]),
        &[json!("grüner"), json!("ä"), json!("aä")],
        &[json!("gru")],
    );
}

#[test]
fn case_is_ignored_in_all_alphabets() {
    assert_list_matches(
        &json!([{ "equals-ignore-case": "alice" }]),
        &[json!("Alice"), json!("ALICE")],
        &[json!("alic"), json!("alices")],
    );
    assert_list_matches(&json!([{ "equals-ignore-case": "ΌΔΟΣ" }]), &[json!("όδος"), json!("όδοσ")], &[json!("οδος")]);
    assert_list_matches(&json!([{ "prefix": { "equals-ignore-case": "ÄÖ" } }]), &[json!("äöü")], &[json!("aeo")]);
    assert_list_matches(
        &json!([{ "suffix": { "equals-ignore-case": "straße" } }]),
        &[json!("STRAßE")],
        &[json!("STRASSE")],
    );
}

#[test]
fn a_star_in_a_wildcard_matches_any_characters() {
    let files = [json!("dir/a.png"), json!("dir/.png"), json!("dir/b/c.png.png")];
    assert_list_matches(
        &json!([{ "wildcard": "dir/*.png" }]),
        &files,
        &[json!("dir.png"), json!("dir/a.png/"), json!("dir/png")],
    );
    assert_list_matches(
        &json!([{ "wildcard": "*/lib/*" }]),
        &[json!("/lib/"), json!("a/lib/b/lib/")],
        &[json!("lib/"), json!("/lib")],
    );
    assert_list_matches(&json!([{ "wildcard": "*" }]), &[json!(""), json!("a")], &[json!(1), json!(null)]);
    assert_list_matches(&json!([{ "wildcard": "a*a" }]), &[json!("aa"), json!("aba")], &[json!("a"), json!("ab")]);
    assert_list_matches(&json!([{ "wildcard": "a" }]), &[json!("a")], &[json!("aa"), json!("")]);
    assert_list_matches(
        &json!([{ "wildcard": r"a\*b\\*" }]),
        &[json!(r"a*b\"), json!(r"a*b\c")],
        &[json!("axb\\"), json!("a*b")],
    );
    assert_list_matches(
        &json!([{ "wildcard": "*ab*ab*" }]),
        &[json!("abab"), json!("xabxabx")],
        &[json!("ab"), json!("aba")],
    );
}

#[test]
fn a_wildcard_with_many_stars_takes_linear_time() {
    let pattern = json!({ "x": [{ "wildcard": format!("{}b", "*a".repeat(2_000)) }] });
    assert!(!matches(&pattern, &json!({ "x": "a".repeat(1_000_000) })));
}

#[test]
fn anything_but_matches_all_values_not_excluded() {
    assert_list_matches(
        &json!([{ "anything-but": "initializing" }]),
        &[json!("running"), json!(1), json!(null), json!(true)],
        &[json!("initializing"), json!({}), json!([])],
    );
    assert_list_matches(&json!([{ "anything-but": 123 }]), &[json!(124), json!("123")], &[json!(123), json!(123.0)]);
    assert_list_matches(
        &json!([{ "anything-but": { "prefix": "us-" } }]),
        &[json!("eu-1"), json!(1)],
        &[json!("us-east-1")],
    );
    assert_list_matches(
        &json!([{ "anything-but": { "prefix": ["us-", "eu-"] } }]),
        &[json!("ap-1")],
        &[json!("us-1"), json!("eu-1")],
    );
    assert_list_matches(&json!([{ "anything-but": { "suffix": ".png" } }]), &[json!("a.jpg")], &[json!("a.png")]);
    assert_list_matches(
        &json!([{ "anything-but": { "suffix": [".png", ".rtf"] } }]),
        &[json!("a.jpg")],
        &[json!("a.png"), json!("a.rtf")],
    );
    let initializing = [json!("INITIALIZING"), json!("initializing"), json!("Initializing")];
    assert_list_matches(
        &json!([{ "anything-but": { "equals-ignore-case": "initializing" } }]),
        &[json!("running")],
        &initializing,
    );
    let either = json!([{ "anything-but": { "equals-ignore-case": ["initializing", "Stopped"] } }]);
    assert_list_matches(&either, &[json!("running")], &[json!("STOPPED"), json!("initializing")]);
    assert_list_matches(
        &json!([{ "anything-but": { "wildcard": "*/lib/*" } }]),
        &[json!("/library/")],
        &[json!("/usr/lib/x")],
    );
    let either = json!([{ "anything-but": { "wildcard": ["*/lib/*", "*/bin/*"] } }]);
    assert_list_matches(&either, &[json!("/etc/x")], &[json!("/usr/lib/x"), json!("/usr/bin/x")]);
    let any = json!({ "x": [{ "anything-but": "a" }] });
    assert!(matches(&any, &json!({ "x": ["a", "b"] })), "one element has another value");
    assert!(!matches(&any, &json!({ "x": ["a", "a"] })));
    assert!(!matches(&any, &json!({ "y": 1 })));
}

#[test]
fn cidr_matches_addresses_in_the_block() {
    assert_list_matches(
        &json!([{ "cidr": "10.0.0.0/24" }]),
        &[json!("10.0.0.0"), json!("10.0.0.255")],
        &[json!("10.0.1.0"), json!("10.0.0"), json!("10.0.0.01"), json!("::ffff:10.0.0.1"), json!("x"), json!(10)],
    );
    assert_list_matches(&json!([{ "cidr": "10.0.0.77/24" }]), &[json!("10.0.0.1")], &[json!("10.0.1.77")]);
    assert_list_matches(&json!([{ "cidr": "0.0.0.0/0" }]), &[json!("255.1.2.3")], &[json!("::1")]);
    assert_list_matches(&json!([{ "cidr": "10.0.0.1/32" }]), &[json!("10.0.0.1")], &[json!("10.0.0.2")]);
    assert_list_matches(
        &json!([{ "cidr": "2001:db8::/32" }]),
        &[json!("2001:db8::1"), json!("2001:DB8:0:0:0:0:0:1")],
        &[json!("2001:db9::")],
    );
    assert_list_matches(&json!([{ "cidr": "::/0" }]), &[json!("::1")], &[json!("1.2.3.4")]);
}

#[test]
fn exists_tests_for_scalar_values() {
    assert_list_matches(
        &json!([{ "exists": true }]),
        &[json!(0), json!(null), json!(""), json!(false)],
        &[json!({ "y": 1 }), json!([]), json!({})],
    );
    assert_list_matches(
        &json!([{ "exists": false }]),
        &[json!({ "y": 1 }), json!([]), json!({})],
        &[json!(0), json!(null), json!("")],
    );
    let pattern = json!({ "data": { "x": [{ "exists": false }, "a"] } });
    for (event, wanted) in [
        (json!({}), true),
        (json!({ "data": 1 }), true),
        (json!({ "data": { "x": "a" } }), true),
        (json!({ "data": { "x": "b" } }), false),
    ] {
        assert_eq!(matches(&pattern, &event), wanted, "{event}");
    }
}

#[test]
fn or_matches_when_one_of_its_objects_matches() {
    let pattern = json!({
        "source": ["aws.cloudwatch"],
        "$or": [
            { "metricName": ["CPUUtilization", "ReadLatency"] },
            { "metricType": ["MetricType"], "namespace": ["AWS/EC2", "AWS/ES"], "$or": [{ "metricId": [1234] }, { "spaceId": [1000] }] },
            { "scope": ["Service"] }
        ]
    });
    for (event, wanted) in [
        (json!({ "source": "aws.cloudwatch", "metricName": "CPUUtilization" }), true),
        (json!({ "source": "aws.cloudwatch", "scope": "Service" }), true),
        (
            json!({ "source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES", "metricId": 1234 }),
            true,
        ),
        (
            json!({ "source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES", "spaceId": 1000 }),
            true,
        ),
        (json!({ "source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES" }), false),
        (json!({ "source": "aws.cloudwatch", "metricType": "MetricType", "metricId": 1234 }), false),
        (json!({ "source": "aws.cloudwatch" }), false),
        (json!({ "scope": "Service" }), false),
    ] {
        assert_eq!(matches(&pattern, &event), wanted, "{event}");
    }
    let parallel = json!({
        "$or": [{ "metricName": ["a"] }, { "namespace": ["b"] }],
        "detail": { "$or": [{ "source": ["c"] }, { "detail-type": ["d"] }] }
    });
    assert!(matches(&parallel, &json!({ "namespace": "b", "detail": { "source": "c" } })));
    assert!(!matches(&parallel, &json!({ "detail": { "source": "c" } })));
    let documented = json!({ "detail": { "$or": [
        { "c-count": [{ "numeric": [">", 0, "<=", 5] }] },
        { "d-count": [{ "numeric": ["<", 10] }] },
        { "x-limit": [{ "numeric": ["=", 3.018e2] }] }
    ] } });
    assert!(matches(&documented, &json!({ "detail": { "x-limit": 301.8 } })));
    assert!(!matches(&documented, &json!({ "detail": { "c-count": 6, "d-count": 10 } })));
}

#[test]
fn fields_match_within_one_array_element() {
    let employees = json!({ "employees": [
        { "firstName": "John", "lastName": "Doe" },
        { "firstName": "Anna", "lastName": "Smith" },
        { "firstName": "Peter", "lastName": "Jones" }
    ] });
    let nested = json!({ "employees": [
        [{ "firstName": "John", "lastName": "Doe" }, { "firstName": "Anna", "lastName": "Smith" }],
        [{ "firstName": "Peter", "lastName": "Jones" }]
    ] });
    for event in [employees, nested] {
        assert!(matches(&json!({ "employees": { "firstName": ["Anna"] } }), &event));
        assert!(matches(&json!({ "employees": { "firstName": ["Anna"], "lastName": ["Smith"] } }), &event));
        assert!(!matches(&json!({ "employees": { "firstName": ["Anna"], "lastName": ["Jones"] } }), &event));
    }
}

#[test]
fn an_array_matches_when_one_element_matches() {
    assert_list_matches(
        &json!(["b", "c"]),
        &[json!(["a", "b"]), json!([["c"]])],
        &[json!(["a"]), json!([]), json!([{ "x": "b" }])],
    );
}

#[test]
fn a_name_with_a_dot_is_one_name() {
    let pattern = json!({ "detail": { "state.status": ["running"] } });
    assert!(matches(&pattern, &json!({ "detail": { "state.status": "running" } })));
    assert!(!matches(&pattern, &json!({ "detail": { "state": { "status": "running" } } })));
}
