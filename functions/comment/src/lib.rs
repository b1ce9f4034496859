//! Comments on new issues of a GitHub repository, through GitHub's API. The trigger's pattern selects the events of new
//! issues. The credentials are headers of the grant in the manifest, so this code never sees them.

use evoke::{Failure, Json, http};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct NewIssue {
    issue: Issue,
    repository: Repository,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    user: User,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Serialize)]
struct Comment {
    body: String,
}

#[derive(Deserialize)]
struct Created {
    html_url: String,
}

#[evoke::function]
fn handle(new: Json<NewIssue>) -> Result<(), Failure> {
    let api = evoke::config::get("API").unwrap_or_else(|| "https://api.github.com".into());
    let url = format!("{api}/repos/{}/issues/{}/comments", new.repository.full_name, new.issue.number);
    let comment =
        Comment { body: format!("Thank you for the report, @{}. We will look at it soon.", new.issue.user.login) };
    let request = http::post(url).header("accept", "application/vnd.github+json").header("user-agent", "evoke");
    let created: Created = request.json(&comment)?.send()?.ok()?.json()?;
    evoke::log::info!("commented: {}", created.html_url);
    Ok(())
}
