from __future__ import annotations

from typing import Optional

from fastapi import APIRouter, Depends, HTTPException
from sqlmodel import Field, Session, SQLModel, select

from sallyport_sdk import AttestationExtension
from sallyport_sdk.core.database import get_session


class TagRow(SQLModel, table=True):
    __tablename__ = "extension_myext_tags"
    tag_id: Optional[int] = Field(default=None, primary_key=True)
    machine_id: str = Field(index=True)
    label: str
    created_by: str


class TagCreate(SQLModel):
    label: str


class TagRead(SQLModel):
    tag_id: int
    machine_id: str
    label: str
    created_by: str


class MyExtension(AttestationExtension):
    """Tag machines with arbitrary labels."""

    @property
    def name(self) -> str:
        return "my_ext"

    @property
    def version(self) -> str:
        return "1.0.0"

    @property
    def description(self) -> str:
        return "Attach custom labels to registered machines"

    def get_models(self) -> list[type]:
        return [TagRow]

    async def on_startup(self) -> None:
        pass

    async def on_shutdown(self) -> None:
        pass

    def get_router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1/myext", tags=["my-extension"])

        @router.post("/machines/{machine_id}/tags", response_model=TagRead)
        async def create_tag(machine_id: str, body: TagCreate, session: Session = Depends(get_session)) -> TagRow:
            tag = TagRow(machine_id=machine_id, label=body.label, created_by="operator")
            session.add(tag)
            session.commit()
            session.refresh(tag)
            return tag

        @router.get("/machines/{machine_id}/tags", response_model=list[TagRead])
        async def list_tags(machine_id: str, session: Session = Depends(get_session)) -> list[TagRow]:
            return session.exec(select(TagRow).where(TagRow.machine_id == machine_id)).all()

        @router.delete("/machines/{machine_id}/tags/{tag_id}", status_code=204)
        async def delete_tag(machine_id: str, tag_id: int, session: Session = Depends(get_session)) -> None:
            tag = session.get(TagRow, tag_id)
            if not tag or tag.machine_id != machine_id:
                raise HTTPException(status_code=404, detail="Tag not found")
            session.delete(tag)
            session.commit()

        return router
