//! The routing table: finds the endpoint of a request by its method and path.
//!
//! If the path of a request is equal to the text of a fixed path, one look-up finds the endpoint. For all other
//! requests, a tree of segments is searched. Of several matching paths, the most specific one wins. The paths are
//! compared segment by segment from the left: a fixed segment is more specific than a parameter, and a parameter is
//! more specific than the rest of a path. A path that does not accept the method is skipped. Each node of the tree is
//! visited at most once, so the time is bounded by the length of the request's path and the number of segments of all
//! declared paths.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::Endpoint;
use super::path::{PathParameters, Segment, decode, segments};
use crate::problem::Problem;

/// The endpoints by path.
#[derive(Debug, Default)]
pub struct Routes {
    /// The endpoints with fixed paths, by the path as written.
    by_path: HashMap<String, Vec<Arc<Endpoint>>>,
    /// All endpoints. The first node is the root.
    tree: Vec<Node>,
}

/// A node of the tree: the endpoints whose paths end here, and the nodes of longer paths.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, usize>,
    parameter: Option<usize>,
    /// The node of paths that match any remaining segments.
    rest: Option<usize>,
    /// The endpoints whose paths end here.
    endpoints: Vec<Arc<Endpoint>>,
}

/// Two sources declare the same path and method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path} is declared by both {first} and {second}: give one of them another path")]
pub struct RouteConflict {
    /// The method that both sources declare.
    pub method: Method,
    /// The path of the second source. The first source can have other names for the parameters.
    pub path: String,
    /// The source that was declared first.
    pub first: String,
    /// The source that was declared second.
    pub second: String,
}

/// The endpoint of a request, and the values of its path parameters, if its path has any.
pub(super) struct Route {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) parameters: Option<PathParameters>,
}

/// The reason why no endpoint can handle a request.
pub(super) enum RouteMiss {
    /// 404: no source has the path. Contains the message for the client.
    Path(String),
    /// 405: sources have the path, but with other methods. Contains the value of `Allow`.
    Method(String),
    /// 400: the value of a path parameter is not valid. Contains the message for the client.
    Parameter(String),
}

impl RouteMiss {
    pub(super) fn problem(self, method: &Method) -> Problem {
        match self {
            Self::Path(detail) => Problem::new(StatusCode::NOT_FOUND, detail),
            Self::Method(allow) => {
                Problem::method(&allow, format!("the method {method} is not allowed for this path; use {allow}"))
            }
            Self::Parameter(detail) => Problem::malformed(detail),
        }
    }
}

impl Routes {
    /// Builds the routing table; fails when two endpoints share a method and match the same paths.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, RouteConflict> {
        let mut routes = Self { by_path: HashMap::new(), tree: vec![Node::default()] };
        for endpoint in endpoints {
            let endpoint = Arc::new(endpoint);
            if endpoint.pattern.is_fixed() {
                routes.by_path.entry(endpoint.path.clone()).or_default().push(endpoint.clone());
            }
            routes.insert(endpoint)?;
        }
        Ok(routes)
    }

    fn insert(&mut self, endpoint: Arc<Endpoint>) -> Result<(), RouteConflict> {
        let mut at = 0;
        for segment in endpoint.pattern.segments() {
            let new = self.tree.len();
            let Some(node) = self.tree.get_mut(at) else { break };
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(new),
                Segment::Parameter(_) => *node.parameter.get_or_insert(new),
                Segment::Rest(_) => *node.rest.get_or_insert(new),
            };
            if at == new {
                self.tree.push(Node::default());
            }
        }
        let Some(node) = self.tree.get_mut(at) else { return Ok(()) };
        for other in &node.endpoints {
            if let Some(method) = endpoint.methods.iter().find(|method| other.methods.contains(method)) {
                return Err(RouteConflict {
                    method: method.clone(),
                    path: endpoint.path.clone(),
                    first: other.uri.to_string(),
                    second: endpoint.uri.to_string(),
                });
            }
        }
        node.endpoints.push(endpoint);
        Ok(())
    }

    /// Finds the endpoint of a request. If no endpoint accepts HEAD, a HEAD request goes to the endpoint that accepts
    /// GET.
    pub(super) fn find(&self, method: &Method, path: &str) -> Result<Route, RouteMiss> {
        if let Some(endpoint) = self.by_path.get(path).and_then(|endpoints| accepting(endpoints, method)) {
            return Ok(Route { endpoint: endpoint.clone(), parameters: None });
        }
        let mut others: Vec<&Arc<Endpoint>> = Vec::new();
        let found = self.walk(path, |endpoints| {
            others.extend(endpoints);
            accepting(endpoints, method)
        });
        let Some(endpoint) = found else {
            return Err(if others.is_empty() { self.unknown_path(path) } else { RouteMiss::Method(allow(&others)) });
        };
        let parameters = match endpoint.pattern.names().next() {
            Some(_) => Some(endpoint.pattern.capture(path).map_err(|bad| RouteMiss::Parameter(bad.0))?),
            None => None,
        };
        Ok(Route { endpoint: endpoint.clone(), parameters })
    }

    /// Calls `visit` with the endpoints of each matching path, the most specific path first, until a call returns a
    /// result.
    fn walk<'r, T>(&'r self, path: &str, mut visit: impl FnMut(&'r [Arc<Endpoint>]) -> Option<T>) -> Option<T> {
        let parts: Vec<_> = segments(path).map(|part| (part, decode(part))).collect();
        // The nodes to visit, each with the number of segments before it. The last element is visited next.
        let mut waiting = vec![(0, 0)];
        while let Some((at, depth)) = waiting.pop() {
            let Some(node) = self.tree.get(at) else { continue };
            let Some((text, decoded)) = parts.get(depth) else {
                match visit(&node.endpoints) {
                    Some(result) => return Some(result),
                    None => continue,
                }
            };
            waiting.extend(node.rest.map(|rest| (rest, parts.len())));
            waiting.extend(node.parameter.filter(|_| !text.is_empty()).map(|parameter| (parameter, depth + 1)));
            let literal = decoded.as_ref().and_then(|decoded| node.literals.get(&**decoded));
            waiting.extend(literal.map(|literal| (*literal, depth + 1)));
        }
        None
    }

    fn unknown_path(&self, path: &str) -> RouteMiss {
        let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        let declared = self.walk(&other, |endpoints| endpoints.first().map(|endpoint| &endpoint.path));
        let hint = declared.map(|declared| format!(", but a source has `{declared}`")).unwrap_or_default();
        RouteMiss::Path(format!("no source has the path `{path}`{hint}; paths must match exactly"))
    }
}

/// Returns the endpoint that accepts a method. A HEAD request can also go to the endpoint that accepts GET.
fn accepting<'e>(endpoints: &'e [Arc<Endpoint>], method: &Method) -> Option<&'e Arc<Endpoint>> {
    let with = |method: &Method| endpoints.iter().find(|endpoint| endpoint.methods.contains(method));
    with(method).or_else(|| if *method == Method::HEAD { with(&Method::GET) } else { None })
}

/// Returns the value of `Allow`: the methods of the endpoints, HEAD if GET is one of them, and OPTIONS.
fn allow(endpoints: &[&Arc<Endpoint>]) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for method in endpoints.iter().flat_map(|endpoint| &endpoint.methods).chain([&Method::OPTIONS]) {
        let more: &[&str] = if *method == Method::GET { &["GET", "HEAD"] } else { &[method.as_str()] };
        for method in more {
            if !methods.contains(method) {
                methods.push(method);
            }
        }
    }
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{HttpSource, SourceMethod};
    use evoke_core::bus::{Origin, Target};

    fn endpoint(path: &str, methods: &[SourceMethod]) -> Endpoint {
        let source = HttpSource { methods: methods.to_vec(), ..HttpSource::at(path) };
        Endpoint::new(&source, &format!("/shop{path}"), Origin(1), Target::Matching)
    }

    /// Returns the declared path of a request with the values of its parameters, or the status and the text of the
    /// error.
    fn find(routes: &Routes, method: &Method, path: &str) -> String {
        match routes.find(method, path) {
            Ok(Route { endpoint, parameters }) => {
                let values = parameters.iter().flat_map(PathParameters::iter);
                values.fold(endpoint.path.clone(), |text, (name, value)| format!("{text} {name}={value}"))
            }
            Err(miss) => {
                let problem = miss.problem(method);
                format!("{} {}", problem.status.as_u16(), problem.detail)
            }
        }
    }

    #[test]
    fn the_most_specific_path_wins_segment_by_segment() {
        let paths = ["/a/b", "/a/{x}", "/a/*", "/{x}/b/c", "/a/{x}/d", "/{rest...}", "/files/{rest...}", "/caf%C3%A9"];
        let routes = Routes::new(paths.map(|path| endpoint(path, &[SourceMethod::Post]))).unwrap();
        for (path, found) in [
            ("/a/b", "/a/b"),
            ("/%61/%62", "/a/b"),
            ("/a/c", "/a/{x} x=c"),
            ("/a/c/d", "/a/{x}/d x=c"),
            // `/a/{x}/d` does not match, and `/a/*` is more specific than `/{x}/b/c` at the first segment.
            ("/a/b/c", "/a/*"),
            ("/z/b/c", "/{x}/b/c x=z"),
            ("/a/", "/a/*"),
            ("/a", "/{rest...} rest=a"),
            ("/", "/{rest...} rest="),
            ("/files/1/2", "/files/{rest...} rest=1/2"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%zz", "400 the path parameter `rest` is not UTF-8 after percent-decoding: `%zz`"),
        ] {
            assert_eq!(find(&routes, &Method::POST, path), found, "{path}");
        }
    }

    #[test]
    fn a_path_without_the_method_is_passed_over_and_listed_in_allow() {
        let routes = Routes::new([
            endpoint("/a/b", &[SourceMethod::Put]),
            endpoint("/a/{x}", &[SourceMethod::Get, SourceMethod::Post]),
            endpoint("/a/{x}/", &[SourceMethod::Post]),
        ]);
        let routes = routes.unwrap();
        assert_eq!(find(&routes, &Method::PUT, "/a/b"), "/a/b");
        assert_eq!(find(&routes, &Method::POST, "/a/b"), "/a/{x} x=b");
        assert_eq!(find(&routes, &Method::HEAD, "/a/b"), "/a/{x} x=b");
        assert_eq!(
            find(&routes, &Method::DELETE, "/a/b"),
            "405 the method DELETE is not allowed for this path; use PUT, GET, HEAD, POST, OPTIONS"
        );
        assert_eq!(
            find(&routes, &Method::POST, "/a/b/c"),
            "404 no source has the path `/a/b/c`; paths must match exactly"
        );
        assert_eq!(find(&routes, &Method::POST, "/a/b/"), "/a/{x}/ x=b");
        assert_eq!(find(&routes, &Method::POST, "/a/"), "404 no source has the path `/a/`; paths must match exactly");
        let one = Routes::new([endpoint("/a/{x}", &[SourceMethod::Post])]).unwrap();
        let expected = "404 no source has the path `/a/b/`, but a source has `/a/{x}`; paths must match exactly";
        assert_eq!(find(&one, &Method::POST, "/a/b/"), expected);
        assert_eq!(find(&one, &Method::POST, "*"), "404 no source has the path `*`; paths must match exactly");
    }

    #[test]
    fn paths_that_match_the_same_requests_conflict() {
        for (one, other) in
            [("/a/{x}", "/a/{y}"), ("/a/{x}", "/%61/{y}"), ("/a/*", "/a/{rest...}"), ("/a", "/%61"), ("/a", "/a")]
        {
            let both = [one, other].map(|path| endpoint(path, &[SourceMethod::Post]));
            let conflict = Routes::new(both).unwrap_err();
            assert_eq!((conflict.path.as_str(), conflict.method), (other, Method::POST));
        }
        for (one, other) in [("/a/{x}", "/a/b"), ("/a/{x}", "/a/*"), ("/{x}/b", "/a/{y}"), ("/a", "/a/")] {
            let both = [one, other].map(|path| endpoint(path, &[SourceMethod::Post]));
            assert!(Routes::new(both).is_ok(), "{one} {other}");
        }
        let methods = [endpoint("/a/{x}", &[SourceMethod::Post]), endpoint("/a/{y}", &[SourceMethod::Get])];
        assert!(Routes::new(methods).is_ok());
    }

    #[test]
    fn a_lookup_visits_each_node_once() {
        // Each of the 8 segments matches in two ways, so all 256 declared paths match the request.
        let ways = |bits: u32| {
            let part = |bit: u32| if (bits >> bit) & 1 == 0 { "/a".to_owned() } else { format!("/{{p{bit}}}") };
            (0..8).map(part).collect::<String>() + "/end"
        };
        let routes = Routes::new((0..256).map(|bits| endpoint(&ways(bits), &[SourceMethod::Post]))).unwrap();
        let mut visited = 0;
        let none = routes.walk(&("/a".repeat(8) + "/end"), |_| {
            visited += 1;
            None::<()>
        });
        assert_eq!((none, visited), (None, 256));
        assert!(routes.tree.len() < 1_024);
        assert_eq!(find(&routes, &Method::POST, &("/a".repeat(8) + "/end")), ways(0));
    }
}
