//! Signing in and out of the console, and what no page ever does.

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

use crate::harness::{Control, start};

/// A browser that keeps one cookie jar by hand, so that a test sees every cookie.
pub struct Browser {
    client: Client,
    base: String,
    cookies: Vec<(String, String)>,
}

impl Browser {
    pub fn new(base: &str) -> Self {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        Self { client, base: base.to_owned(), cookies: Vec::new() }
    }

    pub async fn get(&mut self, path: &str) -> Response {
        let request = self.client.get(format!("{}{path}", self.base)).header(COOKIE, self.jar());
        self.keep(request.send().await.unwrap())
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let body = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect::<Vec<_>>()
            .join("&");
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .header(COOKIE, self.jar())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(body);
        self.keep(request.send().await.unwrap())
    }

    pub async fn sign_in(&mut self, key: &str, next: &str) -> Response {
        let form = self.get(&format!("/login?next={}", encoded(next))).await.text().await.unwrap();
        let (token, next) = (field(&form, "form_token"), field(&form, "next"));
        self.post("/login", &[("admin_key", key), ("form_token", &token), ("next", &next)]).await
    }

    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn set_cookie(&mut self, name: &str, value: &str) {
        self.cookies.retain(|(known, _)| known != name);
        self.cookies.push((name.to_owned(), value.to_owned()));
    }

    fn jar(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, response: Response) -> Response {
        for line in response.headers().get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            assert!(line.contains("HttpOnly") && line.contains("SameSite=Strict"), "{line}");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.set_cookie(name, value);
        }
        response
    }
}

pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// The value of a hidden field.
pub fn field(page: &str, name: &str) -> String {
    let at = page.find(&format!("name=\"{name}\"")).unwrap_or_else(|| panic!("no field {name} in {page}"));
    page[at..].split("value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

pub fn location(response: &Response) -> &str {
    response.headers().get(LOCATION).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

async fn with_workspaces() -> (Control, String) {
    let control = start().await;
    let (_, _) = control.workspace("ours").await;
    let (_, their_key) = control.workspace("theirs").await;
    (control, their_key)
}

#[tokio::test]
async fn who_is_not_signed_in_is_sent_to_the_form_and_back() {
    let (control, _) = with_workspaces().await;
    let mut browser = Browser::new(&control.replica.http);
    let answer = browser.get("/w/ours/event?message_id=m-1").await;
    assert_eq!(answer.status(), 303);
    assert_eq!(location(&answer), "/login?next=%2Fw%2Fours%2Fevent%3Fmessage_id%3Dm-1");
    let answer = browser.get("/w/ours/live.json").await;
    assert_eq!(answer.status(), 401, "a script is told, not redirected");

    let answer = browser.sign_in(&control.key, "/w/ours/event?message_id=m-1").await;
    assert_eq!((answer.status().as_u16(), location(&answer)), (303, "/w/ours/event?message_id=m-1"));
    assert_eq!(browser.get("/w/ours/event?message_id=m-1").await.status(), 200);
    assert_eq!(location(&browser.get("/").await), "/w/ours/live");
    assert!(!browser.cookie("tracklayer_session").unwrap().contains(&control.key));
}

#[tokio::test]
async fn a_wrong_key_a_foreign_form_and_a_foreign_address_lead_nowhere() {
    let (control, _) = with_workspaces().await;
    let mut browser = Browser::new(&control.replica.http);
    let answer = browser.sign_in("tla_wrong", "").await;
    assert_eq!(answer.status(), 401);
    assert!(answer.text().await.unwrap().contains("not known"));
    assert_eq!(browser.cookie("tracklayer_session"), None);

    let form = browser.get("/login").await.text().await.unwrap();
    let token = field(&form, "form_token");
    let mut other = Browser::new(&control.replica.http);
    other.get("/login").await;
    let answer = other.post("/login", &[("admin_key", &control.key), ("form_token", &token)]).await;
    assert_eq!(answer.status(), 403, "a token of another browser");
    assert_eq!(other.cookie("tracklayer_session"), None);

    let answer = browser.sign_in(&control.key, "https://attacker.example/").await;
    assert_eq!(location(&answer), "/");
}

#[tokio::test]
async fn a_workspaces_key_sees_no_page_of_another() {
    let (control, their_key) = with_workspaces().await;
    let mut browser = Browser::new(&control.replica.http);
    browser.sign_in(&their_key, "").await;
    assert_eq!(location(&browser.get("/").await), "/w/theirs/live");
    let own = browser.get("/w/theirs/live").await.text().await.unwrap();
    assert!(!own.contains("ours"), "not even its name");
    for page in ["live", "live.json", "event", "event?message_id=m-1"] {
        assert_eq!(browser.get(&format!("/w/theirs/{page}")).await.status(), 200, "{page}");
        let (there, nowhere) = (format!("/w/ours/{page}"), format!("/w/no-such-workspace/{page}"));
        for path in [there, nowhere] {
            assert_eq!(browser.get(&path).await.status(), 404, "{path}");
        }
    }
}

#[tokio::test]
async fn signing_out_and_deleting_the_key_end_a_session() {
    let (control, their_key) = with_workspaces().await;
    let mut browser = Browser::new(&control.replica.http);
    browser.sign_in(&control.key, "").await;
    let page = browser.get("/w/ours/live").await.text().await.unwrap();
    assert_eq!(browser.post("/logout", &[("form_token", "wrong")]).await.status(), 403);
    let answer = browser.post("/logout", &[("form_token", &field(&page, "form_token"))]).await;
    assert_eq!((answer.status().as_u16(), location(&answer)), (303, "/login"));
    assert_eq!(browser.get("/w/ours/live").await.status(), 303);

    browser.sign_in(&their_key, "").await;
    assert_eq!(browser.get("/w/theirs/live").await.status(), 200);
    sqlx::query("delete from control.admin_key where workspace_id is not null")
        .execute(&control.database.pool)
        .await
        .unwrap();
    assert_eq!(browser.get("/w/theirs/live").await.status(), 303);
}

#[tokio::test]
async fn a_changed_cookie_opens_nothing() {
    let (control, their_key) = with_workspaces().await;
    let mut browser = Browser::new(&control.replica.http);
    browser.sign_in(&their_key, "").await;
    let cookie = browser.cookie("tracklayer_session").unwrap().to_owned();
    let (id, rest) = cookie.split_once('.').unwrap();
    assert_ne!(id, "1", "the first key is the installation's");
    browser.set_cookie("tracklayer_session", &format!("1.{rest}"));
    assert_eq!(browser.get("/w/ours/live").await.status(), 303);
}

#[tokio::test]
async fn every_answer_forbids_foreign_scripts_frames_and_caches() {
    let (control, _) = with_workspaces().await;
    let mut browser = Browser::new(&control.replica.http);
    browser.sign_in(&control.key, "").await;
    for path in ["/login", "/w/ours/live", "/w/ours/live.json", "/w/ours/event", "/no/such/page"] {
        let answer = browser.get(path).await;
        let header = |name: &str| {
            answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        let page = answer.text().await.unwrap();
        assert!(
            !page.contains("style=\"") && !page.contains("<script>"),
            "{path} would break its own policy"
        );
        assert!(!page.contains("http://") && !page.contains("https://"), "{path} loads from elsewhere");
    }
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_their_own_version_only() {
    let control = start().await;
    let mut browser = Browser::new(&control.replica.http);
    let form = browser.get("/login").await.text().await.unwrap();
    let style =
        form.split("href=\"").find(|part| part.contains("console.css")).unwrap().split('"').next().unwrap();
    let answer = browser.get(style).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/css"));
    let old = browser.get("/assets/0123456789abcdef/console.css").await;
    assert_eq!(old.headers()["cache-control"], "no-store");
    assert_eq!(browser.get("/assets/x/passwd").await.status(), 404);
}
