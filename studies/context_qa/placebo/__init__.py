"""Which tokens a repetition penalty has to reach to spoil an answer."""
