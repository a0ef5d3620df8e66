"""A Django project in one module: JSON in and out, uploads, cookies, a stream, a file, an error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.http.ConditionalGetMiddleware"],
)
django.setup()


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("index")


def echo(request: HttpRequest) -> JsonResponse:
    body = request.body
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "args": dict(request.GET.lists()),
            "cookies": request.COOKIES,
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "url": request.build_absolute_uri(),
            "fields": dict(request.headers),
        }
    )


def form(request: HttpRequest) -> JsonResponse:
    files = {name: [file.name, hashlib.sha256(file.read()).hexdigest()] for name, file in request.FILES.items()}
    return JsonResponse({"form": dict(request.POST.lists()), "files": files})


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("cookies")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for number in range(3):
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"), content_type="text/plain")  # Django closes it


def error(request: HttpRequest) -> HttpResponseBase:
    raise ValueError("secret of the application")


urlpatterns = [
    path("", index),
    path("echo/<path:rest>", lambda request, rest: echo(request)),
    path("form", form),
    path("cookies", cookies),
    path("stream", stream),
    path("file", file),
    path("error", error),
]
app = get_wsgi_application()
