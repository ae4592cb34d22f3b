//! The built-in web pages: the list of runs, and one run as it happens.
//!
//! Files in the binary and nothing else: the pages ask the same API as every other client. They
//! load nothing from elsewhere, and their addresses are relative, so that they work under any
//! path that a proxy gives them.

use axum::{
    Router,
    http::{
        HeaderName,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::IntoResponse,
    routing::get,
};

/// Only what this server sends, and no script or style inside the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages, to be merged into the server's router.
pub fn router() -> Router {
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("../pages/index.html")),
        )
        .route(
            "/app.js",
            file("text/javascript; charset=utf-8", include_str!("../pages/app.js")),
        )
        .route(
            "/style.css",
            file("text/css; charset=utf-8", include_str!("../pages/style.css")),
        )
}

fn file(content_type: &'static str, content: &'static str) -> axum::routing::MethodRouter {
    get(async move || (headers(content_type), content).into_response())
}

const fn headers(content_type: &'static str) -> [(HeaderName, &'static str); 5] {
    [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A new version of the server brings new pages.
        (CACHE_CONTROL, "no-cache"),
    ]
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use tower::ServiceExt;

    use super::*;

    async fn page(path: &str) -> (StatusCode, axum::http::HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (
            parts.status,
            parts.headers,
            String::from_utf8(bytes.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn every_file_is_served_with_its_type_and_a_strict_policy() {
        for (path, kind) in [
            ("/", "text/html"),
            ("/app.js", "text/javascript"),
            ("/style.css", "text/css"),
        ] {
            let (status, headers, body) = page(path).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert!(
                headers[CONTENT_TYPE].to_str().unwrap().starts_with(kind),
                "{path}"
            );
            assert_eq!(headers[CONTENT_SECURITY_POLICY], POLICY, "{path}");
            assert!(!body.is_empty(), "{path}");
        }
        assert_eq!(page("/nonsense").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn the_page_loads_nothing_from_elsewhere_and_works_under_any_path() {
        let (_, _, html) = page("/").await;
        let (_, _, script) = page("/app.js").await;
        let (_, _, style) = page("/style.css").await;
        for text in [&html, &script, &style] {
            assert!(!text.contains("://"), "an address of another server");
        }
        for attribute in ["src=\"/", "href=\"/", "<style", "onclick=\""] {
            assert!(!html.contains(attribute), "{attribute}");
        }
        assert!(
            !script.contains("\"/api") && !script.contains("`/api"),
            "an absolute address"
        );
    }

    #[tokio::test]
    async fn what_the_server_says_is_never_read_as_html() {
        let (_, _, script) = page("/app.js").await;
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "DOMParser",
        ] {
            assert!(!script.contains(way), "{way}");
        }
    }
}
