"""The reference for the start: FastAPI and SQLAlchemy, with one connection, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import create_engine, text


def create_app() -> FastAPI:
    """Build an application that is ready when its database answers."""
    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/readyz", ready)
    return app


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Connect once."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    yield
    engine.dispose()


async def ready() -> dict[str, str]:
    """Answer the same as a service."""
    return {"status": "ready"}
