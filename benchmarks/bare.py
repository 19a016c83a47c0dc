"""The reference for the start: FastAPI and SQLAlchemy, with one connection, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


def create_app() -> FastAPI:
    """Build an application that is ready when its database answers."""
    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/readyz", ready)
    return app


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Connect once."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    yield
    await engine.dispose()


async def ready() -> dict[str, str]:
    """Answer the same as a service."""
    return {"status": "ready"}
