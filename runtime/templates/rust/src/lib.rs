use evoke::{Draft, Failure, Json};

#[derive(serde::Deserialize)]
struct Guest {
    name: Option<String>,
}

#[derive(serde::Serialize)]
struct Greeting {
    text: String,
}

#[evoke::function]
fn handle(guest: Json<Guest>) -> Result<(), Failure> {
    let Some(name) = &guest.name else {
        return Err(Failure::reject("the guest has no name"));
    };
    evoke::log::info!("greeting {name}");
    let greeting = Greeting { text: format!("Hello, {name}!") };
    evoke::publish(Draft::new("guest.greeted").subject(name).json(&greeting)?)?;
    Ok(())
}
