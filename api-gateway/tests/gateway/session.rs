//! What ends with a password, and whose requests mean which project.

use crate::harness::{PASSWORD, Person, World, key};
use serde_json::{Value, json};

fn with_key(person: &Person, made: &Value) -> Person {
    Person { token: made["secret"].as_str().expect("a secret").to_owned(), ..person.clone() }
}

/// Ann with a session, a refresh token, a key for everything and one for a project.
struct Ann {
    session: Person,
    refresh_token: String,
    keys: Vec<Person>,
}

impl Ann {
    async fn of(world: &World, password: &str) -> Self {
        let (nobody, body) = (world.nobody(), json!({"username": "ann", "password": password}));
        let tokens = nobody.post("/v1/auth/login", body).await.expect(200);
        let token = tokens["access_token"].as_str().expect("a token").to_owned();
        let session = Person { token, ..world.nobody() };
        let mut keys = Vec::new();
        for body in [
            json!({"name": "all", "password": password}),
            json!({"name": "blue", "project": "blue"}),
            json!({"name": "reader", "role": "reader"}),
        ] {
            keys.push(with_key(&session, &session.post("/v1/api-keys", body).await.expect(201)));
        }
        let refresh_token = tokens["refresh_token"].as_str().expect("a token").to_owned();
        Self { session, refresh_token, keys }
    }

    async fn assert_ended(&self, world: &World, keys_ended: bool, why: &str) {
        println!("{why}");
        self.session.get("/v1/whoami").await.problem(401, "token_invalid");
        let refresh = json!({"refresh_token": self.refresh_token});
        world.nobody().post("/v1/auth/refresh", refresh).await.problem(401, "refresh_token_invalid");
        for key in &self.keys {
            let answer = key.get("/v1/whoami").await;
            if keys_ended { drop(answer.problem(401, "token_invalid")) } else { drop(answer.expect(200)) }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_everything_that_was_made_with_the_old_one() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    world.user(&admin, "ann", "blue", "member").await;

    let ann = Ann::of(&world, PASSWORD).await;
    admin.patch("/v1/users/ann", json!({"password": "the second password"})).await.expect(200);
    ann.assert_ended(&world, true, "an administrator set it").await;

    let ann = Ann::of(&world, "the second password").await;
    let change = json!({"current": "the second password", "new": "the third password"});
    ann.session.put("/v1/whoami/password", change).await.expect(204);
    ann.assert_ended(&world, true, "she set it").await;

    let ann = Ann::of(&world, "the third password").await;
    admin.patch("/v1/users/ann", json!({"password": "the fourth password", "keep_api_keys": true})).await.expect(200);
    ann.assert_ended(&world, false, "the keys are to stay").await;
    for name in ["all", "blue", "reader"] {
        admin.delete(&format!("/v1/users/ann/api-keys/{name}")).await.expect(204);
    }
    ann.assert_ended(&world, true, "an administrator revoked them").await;

    let ann = Ann::of(&world, "the fourth password").await;
    admin.patch("/v1/users/ann", json!({"enabled": false})).await.expect(200);
    ann.assert_ended(&world, true, "she is disabled").await;
    admin.patch("/v1/users/ann", json!({"enabled": true})).await.expect(200);
    ann.assert_ended(&world, false, "what ended with it stays ended").await;
    admin.patch("/v1/users/ann", json!({"keep_api_keys": true})).await.problem(400, "invalid_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_token_makes_no_key_and_keys_make_no_keys() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    world.user(&admin, "ann", "blue", "member").await;
    let ann = Ann::of(&world, PASSWORD).await;
    // Without the password there is no key that can do all that she can, however it is said.
    for body in [
        json!({"name": "k"}),
        json!({"name": "k", "expires_at": "2099-01-01T00:00:00Z"}),
        json!({"name": "k", "role": "admin"}),
    ] {
        ann.session.post("/v1/api-keys", body).await.problem(403, "password_required");
    }
    ann.session.post("/v1/api-keys", json!({"name": "k", "password": "a guess"})).await.problem(403, "wrong_password");
    for key in &ann.keys {
        for body in [json!({"name": "k", "password": PASSWORD}), json!({"name": "k", "project": "blue"})] {
            key.post("/v1/api-keys", body).await.problem(403, "session_required");
        }
        key.put("/v1/whoami/home-project", json!({"project": "blue"})).await.problem(403, "session_required");
        key.delete("/v1/whoami/projects/blue").await.problem(403, "session_required");
    }
    // An administrator sees and revokes what there is, and nobody else does.
    let listed = admin.get("/v1/users/ann/api-keys").await.expect(200);
    let names: Vec<_> = listed["items"].as_array().expect("items").iter().map(|key| &key["name"]).collect();
    assert_eq!(names, ["all", "blue", "reader"]);
    assert!(!listed.to_string().contains("secret"), "{listed}");
    ann.session.get("/v1/users/ann/api-keys").await.problem(403, "permission_denied");
    ann.session.delete("/v1/users/ann/api-keys/all").await.problem(403, "permission_denied");
    admin.delete("/v1/users/ann/api-keys/nope").await.problem(404, "api_key_not_found");
    admin.delete("/v1/users/ann/api-keys/all?dry_run=true").await.expect(200);
    ann.keys[0].get("/v1/whoami").await.expect(200);
    admin.delete("/v1/users/ann/api-keys/all").await.expect(204);
    ann.keys[0].get("/v1/whoami").await.problem(401, "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_into_a_project_keeps_what_their_requests_mean() {
    let world = World::start().await;
    let admin = world.admin().await;
    for project in ["evil", "blue"] {
        world.project(&admin, project).await;
    }
    let eve = world.user(&admin, "eve", "evil", "admin").await;
    let make = async |person: &Person, name: &str| {
        person.post("/v1/ssh-keys", json!({"name": name, "public_key": key(name)})).await
    };
    let add = async |name: &str| {
        eve.put(&format!("/v1/projects/evil/members/{name}"), json!({"role": "admin"})).await.expect(200);
    };
    // A system administrator: every request names its project, before and after.
    make(&admin, "a").await.problem(400, "project_required");
    add("admin").await;
    make(&admin, "a").await.problem(400, "project_required");
    // A user with a project goes on there, and one without gets none.
    let ann = world.user(&admin, "ann", "blue", "member").await;
    admin.post("/v1/users", json!({"name": "bob", "password": PASSWORD})).await.expect(201);
    let bob = world.login("bob", PASSWORD).await;
    add("ann").await;
    add("bob").await;
    make(&ann, "a").await.expect(201);
    make(&bob, "b").await.problem(400, "project_required");
    let names = |list: &Value| list["items"].as_array().expect("items").len();
    assert_eq!(names(&admin.within("evil").get("/v1/ssh-keys").await.expect(200)), 0, "nothing went there");
    // Who wants may choose it, and who doesn't leaves.
    bob.put("/v1/whoami/home-project", json!({"project": "blue"})).await.problem(404, "project_not_found");
    bob.put("/v1/whoami/home-project", json!({"project": "evil"})).await.expect(204);
    make(&bob, "b").await.expect(201);
    let whoami = bob.get("/v1/whoami").await.expect(200);
    assert_eq!(whoami["home_project_id"], whoami["projects"][0]["id"]);
    for person in [&ann, &bob] {
        person.delete("/v1/whoami/projects/evil").await.expect(204);
        person.get("/v1/ssh-keys?project=evil").await.problem(404, "project_not_found");
    }
    make(&ann, "c").await.expect(201);
    make(&bob, "c").await.problem(400, "project_required");
    bob.delete("/v1/whoami/projects/evil").await.problem(404, "project_not_found");
    // Put back, what was left isn't home again.
    add("bob").await;
    make(&bob, "d").await.problem(400, "project_required");
    // Taken out by others, and put back by them: the same.
    admin.delete("/v1/projects/blue/members/ann").await.expect(204);
    let blue = world.user(&admin, "blue-admin", "blue", "admin").await;
    blue.put("/v1/projects/blue/members/ann", json!({"role": "member"})).await.expect(200);
    make(&ann, "e").await.problem(400, "project_required");
}
